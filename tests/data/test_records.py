"""Shards that are cut, spoilt, missing or too many: one line names the file."""

import json
import shutil
import struct

import google_crc32c
import numpy as np
import pytest
from support.rlds_sets import (
    FEATURES,
    WANT,
    make_episodes,
    read_raw,
    refusal,
    rewrite,
    shard,
    write,
)

from dpjax.core.errors import UserError
from dpjax.data import rlds
from dpjax.data.episodes import fingerprint


@pytest.fixture
def data(tmp_path):
    write(tmp_path / "set", make_episodes())
    return tmp_path / "set"


@pytest.mark.parametrize("keep", [0, 10, 0.5, -100, -1])
def test_a_truncated_shard_is_named(data, keep):
    raw = shard(data).read_bytes()
    shard(data).write_bytes(raw[: int(len(raw) * keep) if keep == 0.5 else keep])
    line = refusal(data)
    assert str(shard(data)) in line
    # A file cut at a block of 64 KiB is intact to its reader: the count tells.
    assert "truncated or corrupt" in line or "The file is cut" in line


def test_flipped_bits_are_refused_or_change_nothing(data):
    raw, want = shard(data).read_bytes(), WANT
    used = np.flatnonzero(np.frombuffer(raw, np.uint8))
    rng, refused = np.random.default_rng(0), 0
    for place in [*rng.choice(used, 40), *rng.integers(0, len(raw), 10)]:
        flipped = bytearray(raw)
        flipped[place] ^= 1 << rng.integers(8)
        shard(data).write_bytes(flipped)
        try:
            assert fingerprint(rlds.read(data, features=FEATURES)) == want
        except UserError as error:
            assert str(shard(data)) in str(error)
            refused += 1
    assert refused > 30


def test_a_missing_an_extra_and_a_renamed_shard_are_named(data):
    path = shard(data)
    extra = path.with_name("demos-train.array_record-00001")
    shutil.copy(path, extra)
    assert extra.name in refusal(data)
    path.unlink()
    assert extra.name in refusal(data)
    extra.unlink()
    line = refusal(data)
    assert str(path) in line and "missing shard" in line


def test_a_count_that_differs_from_dataset_info_is_refused(data):
    rewrite(data, lambda examples: examples.pop())
    assert "expected 4 episodes by dataset_info.json, got 3" in refusal(data)


def test_a_git_lfs_pointer_is_called_one(data):
    shard(data).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    assert "Git LFS pointer" in refusal(data)


def masked(payload):
    crc = google_crc32c.value(payload)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


@pytest.fixture
def tfrecord(data):
    """The same set as a TFRecord file; returns (directory, file, offsets of the records)."""
    old, frames, offsets = shard(data), b"", []
    for record in read_raw(old):
        length = struct.pack("<Q", len(record))
        offsets.append(len(frames))
        frames += length + masked(length) + record + masked(record)
    old.unlink()
    new = old.with_name("demos-train.tfrecord-00000")
    new.write_bytes(frames)
    info = data / "1.0.0" / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    return data, new, offsets


def test_a_tfrecord_set_is_read_bit_for_bit(tfrecord):
    read = rlds.read(tfrecord[0], features=FEATURES)
    assert fingerprint(read) == WANT


def test_spoilt_tfrecords_are_refused(tfrecord):
    data, path, offsets = tfrecord
    raw = path.read_bytes()
    huge = struct.pack("<Q", 1 << 60)
    spoilt = {
        raw[:30] + bytes([raw[30] ^ 1]) + raw[31:]: "CRC of a record differs",
        raw[:3] + bytes([raw[3] ^ 1]) + raw[4:]: "CRC of a record's length differs",
        huge + masked(huge) + raw[12:]: "bytes short",
        raw[:-1]: "bytes short",
        raw[: offsets[3] + 5]: "5 bytes of a 12-byte header",
        raw[: offsets[3]]: "expected 4 episodes by dataset_info.json, got 3",
        b"": "expected 4 episodes by dataset_info.json, got 0",
    }
    for content, words in spoilt.items():
        path.write_bytes(content)
        line = refusal(data)
        assert words in line and str(path) in line
