"""The command python -m dpjax.convert: options, missing libraries, kills and second starts."""

import fcntl
import os
from pathlib import Path
import subprocess
import sys
import time

import numpy as np
import pytest
from support import foreign_sets
from support.converting import convert_to, refusal

from dpjax.convert import source as sources
from dpjax.core.errors import UserError
from dpjax.data.rlds import reader

ROOT = Path(__file__).parents[2]
KEYS = ("state", "action", "camera", "count")


def test_mapping_renames_and_keys_select(tmp_path):
    source = foreign_sets.write_npz(
        tmp_path / "s", [{"q": e["state"], "u": e["action"]} for e in foreign_sets.make_episodes()]
    )
    line = refusal(tmp_path, "arrays", source)
    assert "no key 'action' among its data (q, u)" in line and "--mapping NAME=action" in line
    out = convert_to(tmp_path, "arrays", source, "--mapping", "u=action,q=joints", "--fps", "30")
    episodes = foreign_sets.converted(out, ("joints", "action"))
    for episode, original in zip(episodes, foreign_sets.make_episodes()):
        np.testing.assert_array_equal(episode["joints"], original["state"])
    assert reader.metadata(out)["fps"] == 30


@pytest.mark.parametrize(
    "options, words",
    [
        (["--mapping", "state=action"], "state and action would both be 'action'"),
        (["--mapping", "stat=x"], "--mapping stat is not a key of"),
        (["--mapping", "stat=x"], "did you mean 'state'"),
        (["--mapping", "state"], "expected old=new"),
        (["--mapping", "state=a/b"], "'a/b' is not a name for RLDS"),
        (["--mapping", "state=a/b"], "Give another: --mapping state=NEW."),
        (["--keys", "stat"], "--keys stat is not a key of"),
        (["--keys", "stat"], "did you mean 'state'"),
        (["--fps", "nan"], "--fps nan: expected a number above 0"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, options, words):
    assert words in refusal(tmp_path, "arrays", foreign_sets.write_npz(tmp_path / "s"), *options)


@pytest.mark.parametrize(
    "name, write, library, modules",
    [
        ("robomimic", foreign_sets.write_robomimic, "h5py", ["h5py"]),
        ("lerobot", foreign_sets.write_lerobot_v3, "pyarrow", ["pyarrow", "pyarrow.parquet"]),
        ("lerobot", foreign_sets.write_lerobot_v2, "av", ["av"]),
        ("zarr", foreign_sets.write_zarr, "numcodecs", ["numcodecs"]),
    ],
)
def test_a_missing_library_is_named_with_its_extra(
    tmp_path, monkeypatch, name, write, library, modules
):
    source = write(tmp_path / "s")
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)  # Python's way to say: not installed
    line = refusal(tmp_path, name, source)
    assert "is not installed: pip install 'dpjax[data]'." in line and line.startswith(library)


def test_a_changed_source_is_not_mixed_with_what_was_read_before(tmp_path, monkeypatch):
    source = foreign_sets.write_npz(tmp_path / "s")
    read = sources.as_columns

    def stop(source, e, names):
        if e == 2:
            raise KeyboardInterrupt
        return read(source, e, names)

    monkeypatch.setattr(sources, "as_columns", stop)
    with pytest.raises(KeyboardInterrupt):
        convert_to(tmp_path, "arrays", source)
    monkeypatch.undo()
    other = foreign_sets.make_episodes(seed=1)
    np.savez(source / "episode_0.npz", **other[0])
    with pytest.raises(UserError, match="was started with state of the source="):
        convert_to(tmp_path, "arrays", source)
    with pytest.raises(UserError, match="was started with keys=None, now it is"):
        convert_to(tmp_path, "arrays", source, "--keys", "state")


def start(*arguments, env=None):
    """Starts the command in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "dpjax.convert", *map(str, arguments)],
        cwd=ROOT, env={**os.environ, **(env or {})}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_a_reader_that_dies_is_one_line_of_the_command(tmp_path):
    """There is no file that makes HDF5 segfault: a signal takes its place."""
    source = foreign_sets.write_robomimic(tmp_path / "s.hdf5")
    (tmp_path / "sitecustomize.py").write_text(
        "import os, signal\n"
        "if 'DPJAX_CONVERT_CHILD' in os.environ: os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    process = start("robomimic", source, tmp_path / "out", env={"PYTHONPATH": str(tmp_path)})
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 2
    last = stderr.strip().splitlines()[-1]
    assert last.startswith(f"dpjax: error: {source}: the process that read it died (SIGSEGV)")
    assert not list(tmp_path.glob("out*"))


@pytest.mark.slow
def test_the_command_killed_and_started_again_goes_on(tmp_path):
    """Its child must not outlive it: the child holds the lock that the second start needs."""
    episodes = foreign_sets.make_episodes(lengths=[40] * 60)
    source = foreign_sets.write_robomimic(tmp_path / "s.hdf5", episodes)
    out = tmp_path / "out"
    journal = tmp_path / "out.incomplete" / "journal-00000"
    # Killed once the journal has some episodes.
    process = start("robomimic", source, out)
    while process.poll() is None and not (journal.exists() and journal.stat().st_size > 10**5):
        time.sleep(0.005)
    process.kill()
    process.wait()
    process.stderr.close()
    assert not out.exists() and journal.exists()
    # The child is dead once its lock is free.
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with open(journal.with_name("lock")) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.05)
    before = journal.read_bytes()
    again = start("robomimic", source, out)
    _, stderr = again.communicate(timeout=300)
    assert again.returncode == 0, stderr
    expected = [foreign_sets.as_written(episode) for episode in episodes]
    foreign_sets.assert_same(foreign_sets.converted(out, KEYS), expected, KEYS)
    assert len(before) > 10**5 and "/60" in stderr
