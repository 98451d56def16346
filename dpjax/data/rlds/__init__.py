"""RLDS data sets, the format of tensorflow_datasets, without TensorFlow."""

from dpjax.data.rlds.reader import read, stream
from dpjax.data.rlds.writer import write

__all__ = ["read", "stream", "write"]
