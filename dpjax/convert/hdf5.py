"""HDF5 files from strangers: no link is followed, no hole is read.

HDF5 itself reads numbers that were never written as zeros, and follows links into other files
or in circles. Here a dataset is complete and in the file itself, or it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from dpjax.convert.source import as_user_error
from dpjax.core import extras
from dpjax.core.errors import UserError
from dpjax.core.files import refuse_pointer

if TYPE_CHECKING:
    import h5py

# Bytes of one chunk, decoded. HDF5 decodes whole chunks, however little of them is read.
CHUNK_LIMIT = 2**31


def _h5py() -> ModuleType:
    return extras.require("h5py", extra="data")


def open_file(path: Path, expected: str) -> h5py.File:
    """Opens a file for reading. expected: what it should be, for messages."""
    if not path.is_file():
        raise UserError(f"{path}: not a file; expected {expected}.")
    refuse_pointer(path)
    library = _h5py()
    with as_user_error(f"{path}: not an HDF5 file, or truncated"):
        return library.File(path, "r")


def child(group: h5py.Group, name: str, path: Path) -> Any:
    """What the group has under this name; raises a UserError if that is not a hard link."""
    where = f"{path}: {group.name.rstrip('/')}/{name}"
    # The link itself is looked at before it is followed. A soft link may lead in a circle, an
    # external one into any file that the user may read.
    with as_user_error(f"{where}: can't be read"):
        link = group.get(name, getlink=True)
        if link is None:
            raise UserError(f"{where}: missing.")
        if not isinstance(link, _h5py().HardLink):
            raise UserError(f"{where}: expected the data, got a link ({type(link).__name__}).")
        return group[name]


def subgroup(group: h5py.Group, name: str, path: Path) -> h5py.Group:
    """The group under this name."""
    item = child(group, name, path)
    if not isinstance(item, _h5py().Group):
        raise UserError(f"{path}: {item.name}: expected a group, got a {type(item).__name__}.")
    return item


def dataset(group: h5py.Group, name: str, path: Path) -> h5py.Dataset:
    """The dataset [T, ...] of numbers under this name, all of it stored in this file."""
    item = child(group, name, path)
    where = f"{path}: {group.name}/{name}"
    # A single number has the shape ().
    if not isinstance(item, _h5py().Dataset) or not item.shape:
        raise UserError(f"{where}: expected an array [T, ...], got a {type(item).__name__}.")
    # Texts of variable length, and references.
    if item.dtype.hasobject:
        raise UserError(f"{where}: expected numbers, got objects ({item.dtype}).")
    # A virtual dataset is assembled from others, an external one lies in a file of raw bytes.
    if item.is_virtual or item.external:
        raise UserError(f"{where}: expected the data, got a reference to other files.")
    if stored := _stored_too_little(item):
        raise UserError(
            f"{where}: expected {list(item.shape)} {item.dtype}, got {stored}, which HDF5 would "
            "read as zeros. Copy it again."
        )
    return item


def _stored_too_little(item: h5py.Dataset) -> str:
    """How much is stored of a dataset that is not complete; "" if it is."""
    if 0 in item.shape:
        return ""
    # Contiguous: one block of bytes, which exists as soon as one number was written.
    if item.chunks is None:
        size = math.prod(item.shape) * item.dtype.itemsize
        stored = item.id.get_storage_size()
        return "" if stored >= size else f"{stored} of {size} bytes"
    if math.prod(item.chunks) * item.dtype.itemsize > CHUNK_LIMIT:
        return f"chunks of {list(item.chunks)}, more than {CHUNK_LIMIT / 2**30:.0f} GiB each"
    # Chunks are counted and not read: a header may claim 2^40 rows.
    total = math.prod(-(-n // chunk) for n, chunk in zip(item.shape, item.chunks))
    stored = item.id.get_num_chunks()
    return "" if stored == total else f"{stored} of {total} chunks"


def read(item: h5py.Dataset) -> np.ndarray:
    """All numbers of a dataset."""
    with as_user_error(f"{item.file.filename}: {item.name}: can't be decoded"):
        return np.asarray(item[...])


def names(item: h5py.Dataset) -> Sequence[str]:
    """The strings of a dataset of names."""
    # HDF5 has bytes for strings of fixed length.
    values = np.ravel(read(item))
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]
