"""A part of a data set: with on_bad="skip", what is lost is named and counted, the rest is read."""

import json
import logging

from array_record.python.array_record_module import ArrayRecordWriter
import numpy as np
import pytest
from support.rlds_sets import FEATURES, LENGTHS, make_episodes, read_raw, refusal, shard, write

from dpjax.core.errors import UserError
from dpjax.data import rlds
from dpjax.data.rlds import reader

PER_SHARD = (1, 2, 1)  # the episodes of LENGTHS in each shard


@pytest.fixture
def data(tmp_path):
    """A set of three shards."""
    write(tmp_path / "set", make_episodes())
    old = shard(tmp_path / "set")
    records = iter(read_raw(old))
    for number, count in enumerate(PER_SHARD):
        writer = ArrayRecordWriter(str(old.with_name(f"{old.name[:-1]}{number}")), "group_size:1")
        for _ in range(count):
            writer.write(next(records))
        writer.close()
    info = old.with_name("dataset_info.json")
    content = json.loads(info.read_text())
    content["splits"][0]["shardLengths"] = list(map(str, PER_SHARD))
    info.write_text(json.dumps(content))
    return tmp_path / "set"


def path(data, number):
    return data / "1.0.0" / f"demos-train.array_record-0000{number}"


def read_part(data, caplog):
    """The set without what is lost; clears and captures the log."""
    caplog.clear()
    with caplog.at_level(logging.WARNING, "dpjax"):
        return rlds.read(data, features=FEATURES, on_bad="skip")


def test_all_shards_are_read_in_order(data, caplog):
    read = read_part(data, caplog)
    np.testing.assert_array_equal(read.lengths, LENGTHS)
    assert not caplog.text


def test_a_missing_shard_is_left_out_and_its_episodes_are_counted(data, caplog):
    path(data, 1).unlink()
    line = refusal(data)
    assert str(path(data, 1)) in line and "missing shard" in line and "on_bad=skip" in line
    read = read_part(data, caplog)
    np.testing.assert_array_equal(read.lengths, [20, 50])
    want = np.concatenate([make_episodes()[number]["action"] for number in (0, 3)])
    np.testing.assert_array_equal(read.columns["action"], want)
    assert f"skipped: {path(data, 1)}: episodes 1 to 2, missing shard" in caplog.text
    assert "skipped 2 bad of 4 episodes" in caplog.text


def test_a_shard_that_was_not_downloaded_or_is_corrupt_is_left_out(data, caplog):
    path(data, 0).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    raw = path(data, 2).read_bytes()
    path(data, 2).write_bytes(raw[:-100])
    assert "Git LFS pointer" in refusal(data) and "on_bad=skip" in refusal(data)
    np.testing.assert_array_equal(read_part(data, caplog).lengths, LENGTHS[1:3])
    assert "episode 0, a Git LFS pointer" in caplog.text
    assert "episode 3, truncated or corrupt" in caplog.text
    assert "skipped 2 bad of 4 episodes" in caplog.text


def test_a_shard_with_too_few_episodes_keeps_those_that_it_has(data, caplog):
    first = read_raw(path(data, 1))[:1]
    writer = ArrayRecordWriter(str(path(data, 1)), "group_size:1")
    writer.write(first[0])
    writer.close()
    np.testing.assert_array_equal(read_part(data, caplog).lengths, [20, 1, 50])
    assert "episode 2, expected 2 episodes by dataset_info.json, got 1" in caplog.text


def test_a_shard_with_too_many_episodes_belongs_to_another_set(data):
    path(data, 0).write_bytes(path(data, 1).read_bytes())
    assert "expected 1 episodes by dataset_info.json, got 2" in refusal(data, on_bad="skip")


def test_each_lost_episode_is_reported_to_the_caller(data):
    path(data, 1).unlink()
    lost = []
    rlds.read(data, features=FEATURES, on_bad="skip", on_skip=lambda *item: lost.append(item))
    assert [number for number, _ in lost] == [1, 2]
    assert all("episodes 1 to 2, missing shard" in fault for _, fault in lost)


def test_no_shard_at_all_is_refused(data):
    for number in range(3):
        path(data, number).unlink()
    assert "at least 1 good episode" in refusal(data, on_bad="skip")


def test_a_stream_raises(data):
    path(data, 1).unlink()
    with pytest.raises(UserError, match="missing shard"):
        list(rlds.stream(data, features=FEATURES))


def test_of_many_faults_the_first_are_listed(data, caplog, monkeypatch):
    monkeypatch.setattr(reader, "LISTED", 1)
    path(data, 0).unlink()
    path(data, 2).unlink()
    read_part(data, caplog)
    assert caplog.text.count("missing shard") == 1
    assert "skipped 2 bad of 4 episodes (1 more faults)" in caplog.text
