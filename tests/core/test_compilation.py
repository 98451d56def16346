"""The persistent cache: on by default, one folder a kind of processor, never a reason to stop."""

import os
from pathlib import Path
import subprocess
import sys

import pytest

from dpjax.core import runtime

ROOT = Path(__file__).parents[2]

# Compiles a loop in a process of its own, as a command does, and says what came of it.
PROGRAM = """
import sys
import jax
from jax import monitoring
from dpjax import command_line, compilation

compilation.SECONDS = 0.0
events = []
monitoring.register_event_listener(lambda event, **_: events.append(event))

def main():
    add = lambda i, x: jax.numpy.sin(x) + i
    run = jax.jit(lambda x: jax.lax.fori_loop(0, 5, add, x))
    print(run(1.0).item().hex(), events.count("/jax/compilation_cache/cache_hits"))

command_line.run(main)
"""


def command(**env):
    """(stdout's words, stderr) of a process that starts as a command."""
    unset = ("DPJAX_CACHE", "JAX_COMPILATION_CACHE_DIR")
    env = {**{key: x for key, x in os.environ.items() if key not in unset}, **env}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=env, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split(), done.stderr


def test_the_second_process_reads_what_the_first_compiled(tmp_path):
    (first, hits), _ = command(XDG_CACHE_HOME=str(tmp_path))
    (folder,) = (tmp_path / "dpjax").iterdir()
    assert hits == "0" and folder.name == runtime.processor() and any(folder.iterdir())
    (second, hits), said = command(XDG_CACHE_HOME=str(tmp_path))
    assert int(hits) > 0 and second == first and said == ""


def test_the_environment_moves_it_and_turns_it_off(tmp_path):
    command(DPJAX_CACHE=str(tmp_path / "mine"), XDG_CACHE_HOME=str(tmp_path / "user"))
    assert any((tmp_path / "mine" / runtime.processor()).iterdir())
    for _ in range(2):
        (_, hits), _ = command(DPJAX_CACHE="", XDG_CACHE_HOME=str(tmp_path / "user"))
        assert hits == "0"
    assert not (tmp_path / "user").exists()


def test_a_folder_that_cannot_be_written_costs_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    (_, hits), said = command(DPJAX_CACHE=str(tmp_path / "file"))
    assert hits == "0" and said.startswith("dpjax: no compilation cache: ")
    assert said.count("\n") == 1 and str(tmp_path) in said


def test_what_jax_was_told_stays(tmp_path):
    jaxs = tmp_path / "jax"
    command(DPJAX_CACHE=str(tmp_path / "ours"), JAX_COMPILATION_CACHE_DIR=str(jaxs))
    assert not (tmp_path / "ours").exists()


def test_another_processor_has_another_folder(monkeypatch):
    here = runtime.processor()
    monkeypatch.setattr(Path, "read_text", lambda path: "flags : none of these\n")
    assert runtime.processor() != here or not Path("/proc/cpuinfo").exists()


def test_the_users_cache_is_not_the_tests():
    assert runtime.cache_folder() is None


@pytest.mark.parametrize("command", ["train", "evaluate", "sample", "demos", "export"])
def test_every_command_that_compiles_has_it(command):
    assert "    command_line.run(" in (ROOT / "dpjax" / f"{command}.py").read_text()
