"""Reads files written by torch.save: a zip with a pickle and the bytes of the tensors.

    <root>/data.pkl      the saved value; each of its tensors has a key, a shape and strides
    <root>/data/<key>    the bytes of the tensors with that key, uncompressed
    <root>/byteorder     little

torch is not needed, nothing is unpacked to the disk, and no code in the pickle is run (see
`unpickler`). Sizes, offsets and strides are checked before an array is allocated.
"""

from collections.abc import Mapping
import math
from pathlib import Path
from typing import Any, NamedTuple
import zipfile

import ml_dtypes
import numpy as np

from dpjax.core.errors import UserError
from dpjax.interop.torch import machine, unpickler, zip_file

MAX_RANK = 8  # axes of a tensor
# The largest ratio of the tensors' bytes to the file's. Tensors may share bytes, but a hostile
# file could have thousands of large tensors in the same bytes.
LARGEST_RATIO = 4
STORAGES = {  # {torch's name: dtype}
    "Float": np.dtype("<f4"),
    "Double": np.dtype("<f8"),
    "Half": np.dtype("<f2"),
    "BFloat16": np.dtype(ml_dtypes.bfloat16),
    "Long": np.dtype("<i8"),
    "Int": np.dtype("<i4"),
    "Short": np.dtype("<i2"),
    "Char": np.dtype("i1"),
    "Byte": np.dtype("u1"),
    "Bool": np.dtype("?"),
}
DTYPES = {f"torch.{name}Storage": dtype for name, dtype in STORAGES.items()}


class Tensor(NamedTuple):
    """Where the numbers of a tensor are in the file.

    key: names the zip's entry with its bytes. dtype: torch's, such as "torch.FloatStorage".
    count: how many numbers the entry has. offset: index of the tensor's first number in the
        entry. strides: counted in numbers, not in bytes.
    """

    key: str
    dtype: str
    count: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Archive(NamedTuple):
    """The content of a file, before its tensors are read.

    root: the zip's folder. content: the pickle's value as plain data, which may contain
    `Tensor`s and `machine.InertCall`s. unknown: names of the functions that were not called.
    """

    path: Path
    root: str
    content: Any
    unknown: list[str]


def read(path: Path) -> Archive:
    """The content of a file that torch.save wrote; raises UserError for any other file."""
    # The zip: its entries are checked before the pickle is read.
    zip_file.check_format(path)
    try:
        with zipfile.ZipFile(path) as file:
            root = zip_file.check_entries(path, file)
            order = f"{root}/byteorder"  # absent in files of older versions
            if order in file.namelist() and file.read(order) != b"little":
                raise UserError(f"{path}: byteorder: expected little: save the file again.")
            data = file.read(f"{root}/data.pkl")
    except UserError:
        raise
    except Exception as error:  # zipfile raises many types on damaged files
        reason = f"{type(error).__name__}: {str(error)[:120]}"
        raise UserError(f"{path}: can't be read as a zip ({reason}).") from error
    # The pickle, in which only the names in KNOWN become values.
    try:
        content, unknown = unpickler.load(data, KNOWN)
    except machine.Refused as error:
        raise UserError(f"{path}: data.pkl: expected torch.save's pickle: {error}.") from error
    return Archive(path, root, content, unknown)


def arrays(archive: Archive, tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """{name: array} of the tensors; all of them are checked before the first is read."""
    size = archive.path.stat().st_size
    with zipfile.ZipFile(archive.path) as file:
        # Checked first, so that a bad tensor costs no memory.
        sizes = {entry.filename: entry.file_size for entry in file.infolist()}
        for name, tensor in tensors.items():
            if problem := _tensor_problem(archive, sizes, tensor):
                raise UserError(f"{archive.path}: {name}: {problem}.")
        # Tensors may refer to the same bytes, and each of them gets its copy.
        total = sum(math.prod(t.shape) * DTYPES[t.dtype].itemsize for t in tensors.values())
        if total > LARGEST_RATIO * size + 2**20:
            raise UserError(
                f"{archive.path}: tensors of {total} bytes in a file of {size}: expected no more "
                f"than {LARGEST_RATIO} times the file (many names for the same bytes)."
            )
        try:
            return {name: _array(archive, file, tensor) for name, tensor in tensors.items()}
        except Exception as error:  # zipfile raises many types, as above
            raise UserError(f"{archive.path}: damaged ({str(error)[:120]}).") from error


def _tensor_problem(archive: Archive, sizes: Mapping[str, int], tensor: Tensor) -> str:
    """What is wrong with a tensor's description, or ""; sizes: bytes of the zip's entries."""
    # Types first, because the pickle may have any value where a number should be.
    numbers = (tensor.count, tensor.offset, *tensor.shape, *tensor.strides)
    if any(type(x) is not int or x < 0 for x in numbers):
        return f"expected sizes and strides of 0 or more, got {_brief(numbers)}"
    if tensor.dtype not in DTYPES:
        return f"expected one of {', '.join(DTYPES)}, got {tensor.dtype[:80]!r}"
    if len(tensor.shape) != len(tensor.strides) or len(tensor.shape) > MAX_RANK:
        return f"expected one stride per axis and at most {MAX_RANK} axes, got {len(tensor.shape)}"
    # The entry must exist and have exactly the bytes that the pickle says.
    entry = f"{archive.root}/data/{tensor.key}"
    if entry not in sizes:
        return f"its bytes, entry {entry[:80]!r}, are missing"
    expected = tensor.count * DTYPES[tensor.dtype].itemsize
    if sizes[entry] != expected:
        return f"expected {expected} bytes in entry {entry!r}, got {sizes[entry]}"
    # Strides must not overlap: in the order of strides, a step along an axis must go beyond
    # everything that the axes before it reach.
    last = tensor.offset
    for size, stride in sorted(zip(tensor.shape, tensor.strides), key=lambda pair: pair[1]):
        if size > 1 and stride <= last - tensor.offset:
            return f"its strides {tensor.strides} overlap in shape {_brief(tensor.shape)}"
        last += max(size - 1, 0) * stride
    # Now `last` is the largest index that the tensor reaches.
    if math.prod(tensor.shape) and last >= tensor.count:
        return f"shape {_brief(tensor.shape)} reaches number {last} of {tensor.count}"
    return ""


def _brief(numbers) -> str:
    return f"({', '.join(str(x)[:24] for x in numbers)})"


def _array(archive: Archive, file: zipfile.ZipFile, tensor: Tensor) -> np.ndarray:
    """A checked tensor's numbers, in the dtype of the file."""
    dtype = DTYPES[tensor.dtype]
    # An empty tensor has no bytes to read.
    if not math.prod(tensor.shape):
        return np.zeros(tensor.shape, dtype)
    flat = np.frombuffer(file.read(f"{archive.root}/data/{tensor.key}"), dtype)
    # as_strided checks nothing. `_tensor_problem` has checked that no index leaves the entry.
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides)
    return np.array(view, order="C")  # a copy, which owns its memory


def _tensor(storage, offset, shape, strides, *_) -> Tensor:
    """The `Tensor` for a call of torch._utils._rebuild_tensor_v2 with these arguments."""
    # torch refers to the bytes by the tuple ("storage", type, key, device, count).
    pid = storage.pid if isinstance(storage, machine.Persistent) else None
    if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage":
        raise machine.Refused("a tensor without its bytes")
    _, storage_type, key, _, count = pid
    if not isinstance(key, str) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise machine.Refused("a tensor whose shape is not a tuple")
    # A type is a name in the pickle. Anything else gets a name that is in no table of dtypes.
    named = isinstance(storage_type, machine.Global)
    dtype = storage_type.name if named else type(storage_type).__name__
    return Tensor(key, dtype, count, offset, shape, strides)


# The only names in a pickle that become values, computed by these functions.
KNOWN = {
    "collections.OrderedDict": lambda: {},
    "collections.defaultdict": lambda *args: {},
    "_codecs.encode": lambda text, *_: text.encode("latin-1"),  # bytes, in protocol 2
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
}
