"""torch.save's files, read without torch: a zip with a pickle and the bytes of the tensors.

    <name>/data.pkl      what was saved; a tensor in it says which bytes, shape and strides
    <name>/data/<key>    those bytes, uncompressed
    <name>/byteorder     little

Nothing is unpacked to the disk and nothing in the pickle is run (`pickled`). Sizes, offsets
and strides are checked before an array is made.
"""

from collections.abc import Iterable, Mapping
import math
from pathlib import Path
import stat
import struct
from typing import Any, BinaryIO, NamedTuple
import zipfile

import ml_dtypes
import numpy as np

from dpjax.core.errors import UserError
from dpjax.interop.torch import unpickler

MAX_PICKLE = 2**24  # bytes of data.pkl; 300 kB for 500 tensors and their optimizer
MAX_ENTRIES = 100_000
MAX_RANK = 8
STORAGES = {
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
    """Where a tensor's numbers are: which bytes, and which of them."""

    key: str
    dtype: str  # "torch.FloatStorage"
    count: int  # numbers in the bytes
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in numbers


class Archive(NamedTuple):
    """What a file holds: Tensors and pickled.Made among plain data, and the names not known."""

    path: Path
    root: str
    content: Any
    refused: list[str]


def read(path: Path) -> Archive:
    """The content of a torch zip, no tensor read yet; UserError for any other file."""
    _check_kind(path)
    try:
        with zipfile.ZipFile(path) as file:
            root = _check_entries(path, file)
            order = f"{root}/byteorder"
            if order in file.namelist() and file.read(order) != b"little":
                raise UserError(f"{path}: byteorder: expected little, got another: save it anew.")
            data = file.read(f"{root}/data.pkl")
    except UserError:
        raise
    except Exception as error:  # zipfile raises whatever its parts raise
        reason = f"{type(error).__name__}: {str(error)[:120]}"
        raise UserError(f"{path}: can't be read as a zip ({reason}).") from error
    try:
        content, refused = unpickler.load(data, KNOWN)
    except unpickler.Refused as error:
        raise UserError(f"{path}: data.pkl: expected torch.save's pickle: {error}.") from error
    return Archive(path, root, content, refused)


def _check_kind(path: Path) -> None:
    if not path.is_file():
        what = "a folder" if path.is_dir() else "nothing"
        raise UserError(f"{path}: expected a file that torch.save wrote, got {what}.")
    with open(path, "rb") as file:
        head = file.read(512)
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"{path}: a Git LFS pointer, not the file: run git lfs pull.")
    if head[:1] == b"\x80" or head[257:262] == b"ustar":
        raise UserError(
            f"{path}: torch's format from before 1.6 (no zip) is not read: load it with torch and "
            "torch.save it again."
        )
    if head[:4] != b"PK\x03\x04":
        raise UserError(f"{path}: expected a zip that torch.save wrote, got {head[:4]!r}.")


def _check_entries(path: Path, file: zipfile.ZipFile) -> str:
    """The archive's root folder, once every entry is where and what it says."""
    entries = file.infolist()
    if len(entries) > MAX_ENTRIES:
        raise UserError(f"{path}: {len(entries)} entries, {MAX_ENTRIES} at most.")
    roots = {entry.filename.split("/")[0] for entry in entries}
    names = {entry.filename for entry in entries}
    root = min(roots, default="")
    for entry in entries:
        if why := _why_not(entry):
            raise UserError(f"{path}: entry {entry.filename[:80]!r}: {why}.")
    if len(roots) != 1 or len(names) != len(entries) or f"{root}/data.pkl" not in names:
        raise UserError(
            f"{path}: expected the entries of one torch.save, each once, data.pkl among them, got "
            f"{len(entries)} entries, {len(names)} names, folders {sorted(roots)[:3]}."
        )
    size = file.getinfo(f"{root}/data.pkl").file_size
    if size > MAX_PICKLE:
        raise UserError(f"{path}: data.pkl has {size} bytes, {MAX_PICKLE} at most.")
    _check_places(path, file.fp, entries)
    return root


def _why_not(entry: zipfile.ZipInfo) -> str:
    """What is wrong with an entry, or nothing."""
    parts = entry.filename.split("/")
    if entry.filename != entry.orig_filename or set(parts) & {"", ".", ".."} or len(parts) < 2:
        return "expected a name such as archive/data/0"
    if "\\" in entry.filename or ":" in parts[0]:
        return "expected a name such as archive/data/0"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "a link"
    if entry.flag_bits & 1:
        return "encrypted"
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        return f"compressed to {entry.compress_size} of {entry.file_size} bytes; torch stores them"
    return ""


def _check_places(path: Path, file: BinaryIO, entries: Iterable[zipfile.ZipInfo]) -> None:
    """Refuses entries that overlap or end behind the file."""
    end, name = 0, "the start of the file"
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.header_offset < end:
            raise UserError(f"{path}: entry {entry.filename[:80]!r} overlaps {name[:80]!r}.")
        file.seek(entry.header_offset)
        head = file.read(30)
        sizes = struct.unpack("<HH", head[26:30]) if len(head) == 30 else (0, 0)
        end = entry.header_offset + 30 + sum(sizes) + entry.file_size
        name = entry.filename
    if end > path.stat().st_size:
        raise UserError(f"{path}: entry {name[:80]!r} ends at byte {end}, behind the file's end.")


def arrays(archive: Archive, tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """{name: array} of the tensors, all of them checked before one is made."""
    size = archive.path.stat().st_size
    with zipfile.ZipFile(archive.path) as file:
        sizes = {entry.filename: entry.file_size for entry in file.infolist()}
        for name, tensor in tensors.items():
            if why := _why_no_array(archive, sizes, tensor):
                raise UserError(f"{archive.path}: {name}: {why}.")
        total = sum(math.prod(t.shape) * DTYPES[t.dtype].itemsize for t in tensors.values())
        if total > 4 * size + 2**20:
            raise UserError(
                f"{archive.path}: tensors of {total} bytes in a file of {size}: expected no more "
                "than 4 times the file (many names for the same bytes)."
            )
        try:
            return {name: _array(archive, file, tensor) for name, tensor in tensors.items()}
        except Exception as error:  # the same
            raise UserError(f"{archive.path}: damaged ({str(error)[:120]}).") from error


def _why_no_array(archive, sizes, tensor: Tensor) -> str:
    """What is wrong with a tensor, or nothing."""
    numbers = (tensor.count, tensor.offset, *tensor.shape, *tensor.strides)
    if any(type(x) is not int or x < 0 for x in numbers):
        return f"expected sizes and strides of 0 or more, got {_brief(numbers)}"
    if tensor.dtype not in DTYPES:
        return f"expected one of {', '.join(DTYPES)}, got {tensor.dtype[:80]!r}"
    if len(tensor.shape) != len(tensor.strides) or len(tensor.shape) > MAX_RANK:
        return f"expected a stride an axis, {MAX_RANK} axes at most, got {len(tensor.shape)} axes"
    entry = f"{archive.root}/data/{tensor.key}"
    if entry not in sizes:
        return f"its bytes, entry {entry[:80]!r}, are missing"
    there, said = sizes[entry], tensor.count * DTYPES[tensor.dtype].itemsize
    if there != said:
        return f"expected {said} bytes in entry {entry!r}, got {there}"
    last = tensor.offset
    for size, stride in sorted(zip(tensor.shape, tensor.strides), key=lambda pair: pair[1]):
        if size > 1 and stride <= last - tensor.offset:
            return f"its strides {tensor.strides} overlap in shape {_brief(tensor.shape)}"
        last += max(size - 1, 0) * stride
    if math.prod(tensor.shape) and last >= tensor.count:
        return f"shape {_brief(tensor.shape)} reaches number {last} of {tensor.count}"
    return ""


def _brief(numbers) -> str:
    return f"({', '.join(str(x)[:24] for x in numbers)})"


def _array(archive, file, tensor: Tensor) -> np.ndarray:
    dtype = DTYPES[tensor.dtype]
    if not math.prod(tensor.shape):
        return np.zeros(tensor.shape, dtype)
    flat = np.frombuffer(file.read(f"{archive.root}/data/{tensor.key}"), dtype)
    strides = [stride * dtype.itemsize for stride in tensor.strides]
    view = np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides)
    return np.array(view, order="C")


def _tensor(storage, offset, shape, strides, *_) -> Tensor:
    """What torch._utils._rebuild_tensor_v2 is given, as a Tensor."""
    pid = storage.pid if isinstance(storage, unpickler.Persistent) else None
    if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage":
        raise unpickler.Refused("a tensor without its bytes")
    _, kind, key, _, count = pid
    if not isinstance(key, str) or not isinstance(shape, tuple) or not isinstance(strides, tuple):
        raise unpickler.Refused("a tensor whose shape is no tuple")
    dtype = kind.name if isinstance(kind, unpickler.Global) else type(kind).__name__
    return Tensor(key, dtype, count, offset, shape, strides)


KNOWN = {
    "collections.OrderedDict": lambda: {},
    "collections.defaultdict": lambda *of: {},
    "_codecs.encode": lambda text, *_: text.encode("latin-1"),  # bytes, before protocol 3
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
}
