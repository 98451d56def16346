"""A conversion that is killed goes on, and its files have the bytes of one that was not."""

import json
import os
from pathlib import Path
import subprocess
import sys

import numpy as np
import pytest
from support.conversions import EPISODES, accept, conversion, read

from dpjax.core.errors import UserError
from dpjax.data import rlds
from dpjax.data.episodes import digest
from dpjax.data.rlds import reader, resumable_writer
from dpjax.data.rlds.conversion import SOURCE_STATE

FEATURES = {"state": "observation/state", "camera": "observation/camera", "action": "action"}
ROOT = Path(__file__).parents[2]


def contents(out):
    return {file.name: file.read_bytes() for file in sorted(out.rglob("*")) if file.is_file()}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(resumable_writer, "SHARD_EPISODES", 4)


@pytest.fixture
def uninterrupted(tmp_path):
    """The files of a run that nothing interrupted."""
    resumable_writer.write(tmp_path / "uninterrupted" / "set", conversion(), accept)
    return contents(tmp_path / "uninterrupted" / "set")


def test_what_was_given_comes_back_in_order(tmp_path):
    seen = []
    out = tmp_path / "set"
    resumable_writer.write(out, conversion(), lambda path, digests: seen.extend(digests))
    columns = list(rlds.stream(out, features=FEATURES))
    assert [digest(episode) for episode in columns] == seen == [digest(read(e)) for e in range(11)]
    assert reader.metadata(out) == {"fps": 10.0}
    info = json.loads((out / "1.0.0" / "dataset_info.json").read_text())
    assert info["splits"][0]["shardLengths"] == ["4", "4", "3"]


@pytest.mark.parametrize("stop", range(EPISODES))
def test_stopped_at_any_episode_it_goes_on_and_has_the_same_bytes(tmp_path, uninterrupted, stop):
    def stopping(e):
        if e == stop and reads.count(e) >= (stop == 0):
            raise KeyboardInterrupt
        reads.append(e)
        return read(e)

    reads = []
    with pytest.raises(KeyboardInterrupt):
        resumable_writer.write(tmp_path / "set", conversion(stopping), accept)
    assert not (tmp_path / "set").exists()
    again = []
    resumable_writer.write(
        tmp_path / "set", conversion(lambda e: again.append(e) or read(e)), accept
    )
    assert again == [0, *range(stop, EPISODES)]  # 0 for the shapes
    assert contents(tmp_path / "set") == uninterrupted
    assert not list(tmp_path.glob("set.*"))


# The prologue of a process that converts with small shards.
IN_A_PROCESS = """
import os, resource, sys
from pathlib import Path
from dpjax.core.errors import UserError
from dpjax.data.rlds import resumable_writer
from support.conversions import accept, conversion, read
resumable_writer.SHARD_EPISODES = 4
out, number = Path(sys.argv[1]), int(sys.argv[2])
"""
KILLED = (
    IN_A_PROCESS
    + """
reads = 0
def read_and_die(episode):
    global reads
    reads += 1
    if reads == number:
        os.kill(os.getpid(), 9)
    return read(episode)
resumable_writer.write(out, conversion(read_and_die), accept)
"""
)


def run(code, out, number):
    """The exit code of a process that runs `code`."""
    command = [sys.executable, "-c", code, str(out), str(number)]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    return subprocess.run(command, env=env).returncode


@pytest.mark.slow
def test_killed_again_and_again_it_has_the_same_bytes(tmp_path, uninterrupted):
    out = tmp_path / "set"
    deaths = 0
    while not out.exists():
        code = run(KILLED, out, 6)
        deaths += code == -9
        assert code in (0, -9) and deaths < EPISODES
    assert deaths >= 2
    assert contents(out) == uninterrupted


@pytest.mark.parametrize("keep", [0, 5, 13, -1, -40])
def test_a_torn_journal_is_written_again_from_its_last_intact_episode(
    tmp_path, uninterrupted, keep
):
    def stopping(e):
        if e == 3:
            raise KeyboardInterrupt
        return read(e)

    with pytest.raises(KeyboardInterrupt):
        resumable_writer.write(tmp_path / "set", conversion(stopping), accept)
    (journal,) = (tmp_path / "set.incomplete").glob("journal-*")
    os.truncate(journal, keep if keep >= 0 else journal.stat().st_size + keep)
    resumable_writer.write(tmp_path / "set", conversion(), accept)
    assert contents(tmp_path / "set") == uninterrupted


def stopped(tmp_path, **asked):
    """A folder that another command has started."""

    def stopping(e):
        if e == 6:
            raise KeyboardInterrupt
        return read(e)

    with pytest.raises(KeyboardInterrupt):
        resumable_writer.write(tmp_path / "set", conversion(stopping, **asked), accept)
    return tmp_path / "set.incomplete"


def test_other_arguments_are_refused_and_change_nothing(tmp_path):
    folder = stopped(tmp_path, keys="state")
    before = contents(folder)
    with pytest.raises(UserError, match="was started with keys=state, now it is camera"):
        resumable_writer.write(tmp_path / "set", conversion(keys="camera"), accept)
    assert contents(folder) == before


def test_a_spoilt_progress_file_is_refused(tmp_path):
    folder = stopped(tmp_path)
    (folder / "progress.json").write_text("{")
    with pytest.raises(UserError, match="progress.json: can't be read"):
        resumable_writer.write(tmp_path / "set", conversion(), accept)


def test_two_at_once_are_refused(tmp_path):
    def second(e):
        with pytest.raises(UserError, match="another process writes there"):
            resumable_writer.write(tmp_path / "set", conversion(), accept)
        return read(e)

    resumable_writer.write(tmp_path / "set", conversion(second), accept)
    assert (tmp_path / "set").exists()


def spoilt(*numbers):
    """Reads the source, whose episodes `numbers` have a NaN."""

    def read_spoilt(e):
        columns = read(e)
        if e in numbers:
            columns["action"][1, 1] = np.nan
        return columns

    return read_spoilt


def test_all_bad_episodes_are_named_and_what_was_done_is_kept(tmp_path, uninterrupted):
    source = conversion(spoilt(6, 9), **{SOURCE_STATE: "1"})
    with pytest.raises(UserError, match="2 of 11 episodes are bad: .*step 1.*") as refused:
        resumable_writer.write(tmp_path / "set", source, accept)
    text = str(refused.value)
    assert r"episode 6, step 1, action[1]" in text and r"episode 9, step 1, action[1]" in text
    assert "on_bad=skip" in text and str(tmp_path / "set.incomplete") in text
    # Mended: it goes on, and what was done is read again but not written again.
    mended = conversion(**{SOURCE_STATE: "2"})
    resumable_writer.write(tmp_path / "set", mended, accept)
    assert contents(tmp_path / "set") == uninterrupted


def test_a_source_that_changed_where_it_was_done_is_refused(tmp_path):
    for source in (conversion(spoilt(6), **{SOURCE_STATE: "1"}),
                   conversion(lambda e: read(e + (e == 2)), **{SOURCE_STATE: "2"})):  # fmt: skip
        with pytest.raises(UserError) as refused:
            resumable_writer.write(tmp_path / "set", source, accept)
    assert "was started with state of the source=1, now it is 2" in str(refused.value)
    assert "and so is its episode 2" in str(refused.value)
    fewer = conversion(**{SOURCE_STATE: "2"})._replace(num_episodes=5)
    with pytest.raises(UserError, match="6 of its episodes are done, and 5 are there"):
        resumable_writer.write(tmp_path / "set", fewer, accept)


@pytest.mark.parametrize("numbers", [(6, 9), (0, 1, 10)])
def test_bad_episodes_are_left_out_and_named(tmp_path, caplog, numbers):
    out = tmp_path / "set"
    with pytest.raises(UserError, match="are bad"):
        resumable_writer.write(out, conversion(spoilt(*numbers)), accept)
    skipping = conversion(spoilt(*numbers))._replace(skip_bad=True)
    seen = []
    resumable_writer.write(out, skipping, lambda path, digests: seen.extend(digests))
    good = [digest(read(e)) for e in range(EPISODES) if e not in numbers]
    assert [digest(episode) for episode in rlds.stream(out, features=FEATURES)] == seen == good
    assert f"left out: {len(numbers)} of 11 episodes are bad" in caplog.text
    assert all(f"episode {number}, step 1" in caplog.text for number in numbers)


def test_an_episode_that_was_left_out_and_is_mended_starts_anew(tmp_path):
    def stopping(e):
        if e == 9:
            raise KeyboardInterrupt
        return spoilt(6)(e)

    first = conversion(stopping, **{SOURCE_STATE: "1"})._replace(skip_bad=True)
    with pytest.raises(KeyboardInterrupt):
        resumable_writer.write(tmp_path / "set", first, accept)
    mended = conversion(**{SOURCE_STATE: "2"})._replace(skip_bad=True)
    with pytest.raises(UserError, match="so is its episode 6"):
        resumable_writer.write(tmp_path / "set", mended, accept)


def test_no_good_episode_is_refused_and_leaves_nothing_behind(tmp_path):
    source = conversion(spoilt(*range(EPISODES)))._replace(skip_bad=True)
    with pytest.raises(UserError, match="all 11 episodes are bad; .*episode 0, step 1"):
        resumable_writer.write(tmp_path / "set", source, accept)
    assert list(tmp_path.iterdir()) == []


def test_what_reads_back_different_gets_no_name(tmp_path):
    def refuse(path, digests):
        raise UserError("different")

    with pytest.raises(UserError, match="different"):
        resumable_writer.write(tmp_path / "set", conversion(), refuse)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_what_is_done(tmp_path, uninterrupted):
    def full(e):
        if e == 6:
            raise OSError(28, "No space left on device")
        return read(e)

    with pytest.raises(UserError, match="No space left on device. What is done is kept"):
        resumable_writer.write(tmp_path / "set", conversion(full), accept)
    resumable_writer.write(tmp_path / "set", conversion(), accept)
    assert contents(tmp_path / "set") == uninterrupted


FULL = (
    IN_A_PROCESS
    + """
resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))
try:
    resumable_writer.write(out, conversion(), accept)
except UserError as error:
    assert "What is done is kept there" in str(error), error
    sys.exit(3)
"""
)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1000, 4000, 30_000])
def test_files_that_cannot_grow_keep_what_is_done(tmp_path, uninterrupted, size):
    """In the journal, and in the shard, whose files are of 64 KiB at least."""
    assert run(FULL, tmp_path / "set", size) == 3
    resumable_writer.write(tmp_path / "set", conversion(), accept)
    assert contents(tmp_path / "set") == uninterrupted
