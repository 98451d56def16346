"""Settings of a process: what is asked of the C library and of XLA, and the compilation cache."""

import logging
import os
from pathlib import Path
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from dpjax.core import runtime

ROOT = Path(__file__).parents[2]

FAULTS = """
import resource
from dpjax.core import runtime
{set_up}
import jax, jax.numpy as jnp
f = jax.jit(lambda x: (jnp.cumsum(x, 0) * jnp.cumsum(x, 1)).sum())
x = jnp.ones((2048, 2048))
faults, calls = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt, []
for _ in range(8):  # a heap may still grow in one call: the least of them is what a call costs
    before = faults()
    f(x).block_until_ready()
    calls.append(faults() - before)
print(min(calls))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc's allocator")
@pytest.mark.slow
def test_a_calls_memory_is_kept_for_the_next():
    def faults(set_up):
        code = FAULTS.format(set_up=set_up)
        env = {**os.environ, "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, env=env, cwd=ROOT, check=True
        )
        return int(done.stdout), done.stderr.decode()

    usual, _ = faults("")
    kept, stderr = faults("runtime.set_up()")
    assert kept < usual / 10, (kept, usual, stderr)


def test_elsewhere_than_with_glibc_memory_is_left_alone(monkeypatch):
    monkeypatch.setattr(runtime.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda name: 1 / 0)
    runtime.keep_memory()


@pytest.mark.skipif(not runtime.is_tried(), reason="XLA's settings were tried with another jaxlib")
@pytest.mark.parametrize("flags", ["", "--xla_cpu_enable_fast_math=false"])
def test_flags_are_added_once_to_those_that_are_there(monkeypatch, flags):
    monkeypatch.setenv("XLA_FLAGS", flags)
    runtime.choose_libraries()
    once = os.environ["XLA_FLAGS"]
    runtime.choose_libraries()
    assert once.startswith(flags) and once.count(runtime.YNNPACK_FLAG) == 1
    assert os.environ["XLA_FLAGS"] == once


def test_a_users_own_choice_and_another_jaxlib_are_left_alone(monkeypatch):
    choice = f"{runtime.YNNPACK_FLAG}="
    monkeypatch.setenv("XLA_FLAGS", choice)
    runtime.choose_libraries()
    assert os.environ["XLA_FLAGS"] == choice
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(runtime, "jaxlib_version", lambda: "0.9.1")
    runtime.choose_libraries()
    assert os.environ["XLA_FLAGS"] == ""


@pytest.mark.skipif(
    runtime.compiler_options() is None, reason="of a CPU and a jaxlib that was tried"
)
def test_barriers_hold_where_they_are_asked_for():
    def program(options):
        f = lambda x: jnp.sin(jax.lax.optimization_barrier(2 * x + 1))
        return jax.jit(f, compiler_options=options).lower(jnp.ones(99)).compile().as_text()

    assert "opt-barrier" not in program(None)  # otherwise the option is not needed any more
    assert "opt-barrier" in program(runtime.compiler_options())


def test_another_jaxlib_gets_no_option_about_barriers(monkeypatch):
    monkeypatch.setattr(runtime, "jaxlib_version", lambda: "0.9.1")
    assert runtime.compiler_options() is None


# Compiles a loop in a process of its own, as a command does, and prints what became of it.
PROGRAM = """
import jax
from jax import monitoring
from dpjax.config import flags
from dpjax.core import runtime

runtime.MIN_COMPILE_SECONDS = 0.0
events = []
monitoring.register_event_listener(lambda event, **_: events.append(event))

def main():
    add = lambda i, x: jax.numpy.sin(x) + i
    run = jax.jit(lambda x: jax.lax.fori_loop(0, 5, add, x))
    print(run(1.0).item().hex(), events.count("/jax/compilation_cache/cache_hits"))

flags.run(main)
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
    (second, hits), stderr = command(XDG_CACHE_HOME=str(tmp_path))
    assert int(hits) > 0 and second == first and stderr == ""


def test_the_environment_moves_the_cache_and_turns_it_off(tmp_path):
    command(DPJAX_CACHE=str(tmp_path / "mine"), XDG_CACHE_HOME=str(tmp_path / "user"))
    assert any((tmp_path / "mine" / runtime.processor()).iterdir())
    for _ in range(2):
        (_, hits), _ = command(DPJAX_CACHE="", XDG_CACHE_HOME=str(tmp_path / "user"))
        assert hits == "0"
    assert not (tmp_path / "user").exists()


def test_a_folder_that_cannot_be_written_costs_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    (_, hits), stderr = command(DPJAX_CACHE=str(tmp_path / "file"))
    assert hits == "0" and stderr.startswith("dpjax: no compilation cache: ")
    assert stderr.count("\n") == 1 and str(tmp_path) in stderr


def test_a_user_without_a_home_gets_a_warning(monkeypatch, caplog):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(runtime, "cache_folder", no_home)
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        with caplog.at_level(logging.WARNING, logger="dpjax"):
            assert runtime.use_cache() is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert "no compilation cache: Could not determine" in caplog.text


def test_a_cache_that_jax_was_given_stays(tmp_path):
    folder = tmp_path / "jax"
    command(DPJAX_CACHE=str(tmp_path / "ours"), JAX_COMPILATION_CACHE_DIR=str(folder))
    assert not (tmp_path / "ours").exists()


def test_another_processor_has_another_folder(monkeypatch):
    here = runtime.processor()
    monkeypatch.setattr(Path, "read_text", lambda path: "flags : none of these\n")
    assert runtime.processor() != here or not Path("/proc/cpuinfo").exists()


def test_tests_do_not_use_the_users_cache():
    assert runtime.cache_folder() is None


@pytest.mark.parametrize("command", ["train", "evaluate", "sample", "demos", "export.__main__"])
def test_every_command_that_compiles_has_the_cache(command):
    path = ROOT / "dpjax" / command.replace(".", "/")
    assert re.search(r"^    flags(_lib)?\.run\(", path.with_suffix(".py").read_text(), re.MULTILINE)
