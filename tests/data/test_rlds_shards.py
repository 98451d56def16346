"""A conversion that is killed goes on, and its files have the bytes of one that was not."""

import json
import os
from pathlib import Path
import subprocess
import sys

import numpy as np
import pytest

from dpjax.core.errors import UserError
from dpjax.data import rlds
from dpjax.data.episodes import digest
from dpjax.data.rlds import reader, resumable_writer

FEATURES = {"state": "observation/state", "camera": "observation/camera", "action": "action"}
EPISODES = 11


def read(e):
    rng = np.random.default_rng(e)
    length = 3 + e % 4
    return {
        "state": rng.normal(size=(length, 5)).astype(np.float32),
        "camera": rng.integers(0, 256, (length, 6, 4, 3), np.uint8),
        "action": rng.normal(size=(length, 2)).astype(np.float32),
    }


def job(read=read, **asked):
    return resumable_writer.Conversion(
        asked={"source": "made up", **asked},
        episodes=EPISODES,
        read=read,
        about=lambda e: {"task": f"task {e}"},
        observations=("state", "camera"),
        description="made up",
        facts={"fps": 10.0},
    )


def nothing(path, digests):
    pass


def contents(out):
    return {file.name: file.read_bytes() for file in sorted(out.rglob("*")) if file.is_file()}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(resumable_writer, "SHARD_EPISODES", 4)


@pytest.fixture
def whole(tmp_path):
    """The files of a run that nothing interrupted."""
    resumable_writer.write(tmp_path / "whole" / "set", job(), nothing)
    return contents(tmp_path / "whole" / "set")


def test_what_was_given_comes_back_in_order(tmp_path):
    seen = []
    out = tmp_path / "set"
    resumable_writer.write(out, job(), lambda path, digests: seen.extend(digests))
    found = list(rlds.stream(out, features=FEATURES))
    assert [digest(columns) for columns in found] == seen == [digest(read(e)) for e in range(11)]
    assert reader.metadata(out) == {"fps": 10.0}
    info = json.loads((out / "1.0.0" / "dataset_info.json").read_text())
    assert info["splits"][0]["shardLengths"] == ["4", "4", "3"]


@pytest.mark.parametrize("stop", range(EPISODES))
def test_stopped_at_any_episode_it_goes_on_and_has_the_same_bytes(tmp_path, whole, stop):
    def stopping(e):
        if e == stop and reads.count(e) >= (stop == 0):
            raise KeyboardInterrupt
        reads.append(e)
        return read(e)

    reads = []
    with pytest.raises(KeyboardInterrupt):
        resumable_writer.write(tmp_path / "set", job(stopping), nothing)
    assert not (tmp_path / "set").exists()
    again = []
    resumable_writer.write(tmp_path / "set", job(lambda e: again.append(e) or read(e)), nothing)
    assert again == [0, *range(stop, EPISODES)]  # 0 for the shapes
    assert contents(tmp_path / "set") == whole
    assert not list(tmp_path.glob("set.*"))


KILLED = """
import os, sys
sys.path.insert(0, {here!r})
import test_rlds_shards as t
t.rlds_shards.SHARD_EPISODES = 4
done = [0]
def read(e):
    done[0] += 1
    if done[0] == {count}:
        os.kill(os.getpid(), 9)
    return t.read(e)
t.rlds_shards.write(t.Path({out!r}), t.job(read), t.nothing)
"""


def test_killed_again_and_again_it_has_the_same_bytes(tmp_path, whole):
    out, deaths = tmp_path / "set", 0
    code = KILLED.format(here=str(Path(__file__).parent), out=str(out), count=6)
    while not out.exists():
        done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
        deaths += done.returncode == -9
        assert done.returncode in (0, -9) and deaths < EPISODES
    assert deaths >= 2
    assert contents(out) == whole


@pytest.mark.parametrize("keep", [0, 5, 13, -1, -40])
def test_a_torn_journal_is_written_again_from_its_last_whole_episode(tmp_path, whole, keep):
    def stopping(e):
        if e == 3:
            raise KeyboardInterrupt
        return read(e)

    with pytest.raises(KeyboardInterrupt):
        resumable_writer.write(tmp_path / "set", job(stopping), nothing)
    (journal,) = (tmp_path / "set.incomplete").glob("journal-*")
    os.truncate(journal, keep if keep >= 0 else journal.stat().st_size + keep)
    resumable_writer.write(tmp_path / "set", job(), nothing)
    assert contents(tmp_path / "set") == whole


def stopped(tmp_path, **asked):
    """A folder that another command began."""

    def stopping(e):
        if e == 6:
            raise KeyboardInterrupt
        return read(e)

    with pytest.raises(KeyboardInterrupt):
        resumable_writer.write(tmp_path / "set", job(stopping, **asked), nothing)
    return tmp_path / "set.incomplete"


def test_other_arguments_are_refused_and_change_nothing(tmp_path):
    folder = stopped(tmp_path, keys="state")
    before = contents(folder)
    with pytest.raises(UserError, match="was begun with keys=state, now it is camera"):
        resumable_writer.write(tmp_path / "set", job(keys="camera"), nothing)
    assert contents(folder) == before


def test_a_spoilt_progress_file_is_refused(tmp_path):
    folder = stopped(tmp_path)
    (folder / "progress.json").write_text("{")
    with pytest.raises(UserError, match="progress.json: can't be read"):
        resumable_writer.write(tmp_path / "set", job(), nothing)


def test_two_at_once_are_refused(tmp_path):
    def second(e):
        with pytest.raises(UserError, match="another process writes there"):
            resumable_writer.write(tmp_path / "set", job(), nothing)
        return read(e)

    resumable_writer.write(tmp_path / "set", job(second), nothing)
    assert (tmp_path / "set").exists()


def test_a_bad_episode_leaves_nothing_behind(tmp_path):
    def bad(e):
        columns = read(e)
        if e == 6:
            columns["action"][1, 1] = np.nan
        return columns

    with pytest.raises(UserError, match=r"made up: episode 6, step 1, action\[1\]"):
        resumable_writer.write(tmp_path / "set", job(bad), nothing)
    assert list(tmp_path.iterdir()) == []


def test_what_reads_back_different_gets_no_name(tmp_path):
    def refuse(path, digests):
        raise UserError("different")

    with pytest.raises(UserError, match="different"):
        resumable_writer.write(tmp_path / "set", job(), refuse)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_what_is_done(tmp_path, whole):
    def full(e):
        if e == 6:
            raise OSError(28, "No space left on device")
        return read(e)

    with pytest.raises(UserError, match="No space left on device. What is done is kept"):
        resumable_writer.write(tmp_path / "set", job(full), nothing)
    resumable_writer.write(tmp_path / "set", job(), nothing)
    assert contents(tmp_path / "set") == whole


FULL = """
import resource, sys
sys.path.insert(0, {here!r})
import test_rlds_shards as t
t.rlds_shards.SHARD_EPISODES = 4
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))
try:
    t.rlds_shards.write(t.Path({out!r}), t.job(), t.nothing)
except t.UserError as error:
    assert "What is done is kept there" in str(error), error
    sys.exit(3)
"""


@pytest.mark.parametrize("size", [1000, 4000, 30_000])
def test_files_that_cannot_grow_keep_what_is_done(tmp_path, whole, size):
    """In the journal, and in the shard, whose files are of 64 KiB at least."""
    code = FULL.format(here=str(Path(__file__).parent), out=str(tmp_path / "set"), size=size)
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    assert done.returncode == 3
    resumable_writer.write(tmp_path / "set", job(), nothing)
    assert contents(tmp_path / "set") == whole
