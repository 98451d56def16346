"""RLDS sets to spoil, for the tests of reading and writing them."""

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
import numpy as np
import pytest
from tensorflow_datasets.proto import tf_example_pb2

from dpjax.core.errors import UserError
from dpjax.data import rlds
from dpjax.data.episodes import fingerprint, stack

FEATURES = {"state": "observation/state", "points": "observation/points", "action": "action"}
SHAPES = {"state": (5,), "points": (3, 2), "action": (2,)}
LENGTHS = [20, 1, 33, 50]


def make_episodes(lengths=LENGTHS):
    rng = np.random.default_rng(0)
    return [
        {key: rng.normal(size=(n, *shape)).astype(np.float32) for key, shape in SHAPES.items()}
        for n in lengths
    ]


WANT = fingerprint(stack(make_episodes(), ""))


def write(out, episodes, **options):
    options = {"observations": ["state", "points"], "description": "made up"} | options
    return rlds.write(out, episodes, **options)


def shard(data):
    (path,) = (data / "1.0.0").glob("demos-train.*")
    return path


def read_raw(path):
    return ArrayRecordReader(str(path)).read_all()


def rewrite(data, change):
    """Writes the shard anew with `change(examples)` applied: a second writer, unchecked."""
    path = shard(data)
    examples = [tf_example_pb2.Example.FromString(raw) for raw in read_raw(path)]
    change(examples)
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for example in examples:
        writer.write(example.SerializeToString())
    writer.close()


def refusal(data, **options):
    """The one line that reading `data` is refused with."""
    with pytest.raises(UserError) as caught:
        rlds.read(data, **({"features": FEATURES} | options))
    line = str(caught.value)
    assert "\n" not in line
    return line
