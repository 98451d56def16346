"""Small RLDS data sets to read and to spoil."""

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
import numpy as np
import pytest
from tensorflow_datasets.proto import tf_example_pb2

from dpjax.core.errors import UserError
from dpjax.data import rlds
from dpjax.data.episodes import fingerprint, stack

FEATURES = {"state": "observation/state", "points": "observation/points", "action": "action"}
SHAPES = {"state": (5,), "points": (3, 2), "action": (2,)}
LENGTHS = [20, 1, 33, 50]  # steps per episode


def make_episodes(lengths=LENGTHS):
    """Episodes {column: float32 [T, ...]} of noise."""
    rng = np.random.default_rng(0)
    return [
        {key: rng.normal(size=(n, *shape)).astype(np.float32) for key, shape in SHAPES.items()}
        for n in lengths
    ]


# What every reader must get from them.
WANT = fingerprint(stack(make_episodes(), ""))


def write(out, episodes, **options):
    """Writes a data set; options replace those that are given to `rlds.write` here."""
    options = {"observations": ["state", "points"], "description": "made up"} | options
    return rlds.write(out, episodes, **options)


def shard(data):
    """The only shard of a data set."""
    (path,) = (data / "1.0.0").glob("demos-train.*")
    return path


def read_raw(path):
    """The serialized records of a shard."""
    return ArrayRecordReader(str(path)).read_all()


def rewrite(data, change):
    """Writes the shard again after `change(examples)`, without the checks of dpjax's writer."""
    path = shard(data)
    examples = [tf_example_pb2.Example.FromString(raw) for raw in read_raw(path)]
    change(examples)
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for example in examples:
        writer.write(example.SerializeToString())
    writer.close()


def refusal(data, **options):
    """The one line with which reading a data set is refused."""
    with pytest.raises(UserError) as caught:
        rlds.read(data, **({"features": FEATURES} | options))
    line = str(caught.value)
    assert "\n" not in line
    return line
