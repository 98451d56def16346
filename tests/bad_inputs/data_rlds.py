"""Broken and hostile RLDS data sets, which are read without a conversion."""

import json
import struct

from bad_inputs.case import POINTER, ReadCase, png_header
import google_crc32c
from support import foreign_sets

FEATURES = {"state": "observation/state", "action": "action"}


def _masked(payload):
    crc = google_crc32c.value(payload)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _tfrecord(folder, change, *words, features=FEATURES):
    """A tfrecord set whose one shard `change` spoils: bytes -> bytes."""
    from array_record.python.array_record_module import ArrayRecordReader

    from dpjax.data import rlds

    keep = ("state", "action", "camera")
    episodes = ({key: episode[key] for key in keep} for episode in foreign_sets.make_episodes())
    root = folder / "set"
    rlds.write(root, episodes, observations=("state", "camera"), description="made up")
    old = root / "1.0.0" / "demos-train.array_record-00000"
    content = b""
    for record in ArrayRecordReader(str(old)).read_all():
        length = struct.pack("<Q", len(record))
        content += length + _masked(length) + record + _masked(record)
    old.unlink()
    shard = old.with_name("demos-train.tfrecord-00000")
    shard.write_bytes(change(content))
    info = root / "1.0.0" / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    return ReadCase(root, features, (shard.name, *words))


def tfrecord_flipped_bit(folder):
    change = lambda raw: raw[:60] + bytes([raw[60] ^ 4]) + raw[61:]
    return _tfrecord(folder, change, "CRC of a record differs")


def tfrecord_of_2_60_bytes(folder):
    length = struct.pack("<Q", 2**60)
    return _tfrecord(folder, lambda raw: length + _masked(length) + raw[12:], "bytes short")


def tfrecord_cut(folder):
    return _tfrecord(folder, lambda raw: raw[:-5], "bytes short")


def tfrecord_pointer(folder):
    return _tfrecord(folder, lambda raw: POINTER.encode(), "a Git LFS pointer")


def tfrecord_empty(folder):
    return _tfrecord(folder, lambda raw: b"", "expected 3 episodes by dataset_info.json, got 0")


def rlds_image_of_30000_px(folder):
    """An encoded image whose header claims more pixels than any memory has."""
    from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    from dpjax.data import rlds

    keep = ("camera", "action")
    episodes = ({key: episode[key] for key in keep} for episode in foreign_sets.make_episodes())
    root = folder / "set"
    rlds.write(root, episodes, observations=("camera",), description="made up")
    shard = root / "1.0.0" / "demos-train.array_record-00000"
    examples = [
        tf_example_pb2.Example.FromString(x) for x in ArrayRecordReader(str(shard)).read_all()
    ]
    images = examples[1].features.feature["steps/observation/camera"].bytes_list
    images.value[4] = png_header(30_000, 30_000)
    writer = ArrayRecordWriter(str(shard), "group_size:1")
    for example in examples:
        writer.write(example.SerializeToString())
    writer.close()
    words = (shard.name, "episode 1", "step 4: not an image (DecompressionBombError")
    return ReadCase(root, {"camera": "observation/camera", "action": "action"}, words)
