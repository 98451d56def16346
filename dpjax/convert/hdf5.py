"""Reads HDF5 files from untrusted sources.

The HDF5 library returns zeros for numbers that were never written, and follows links to other
files or in circles. Here a dataset must be complete and stored in the file itself; otherwise it
is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from dpjax.convert.compared import Header, numbers
from dpjax.convert.source import as_user_error
from dpjax.core import extras
from dpjax.core.errors import UserError
from dpjax.core.files import refuse_pointer

if TYPE_CHECKING:
    import h5py

# Largest chunk in bytes, decoded. HDF5 decodes a whole chunk even to read one number of it.
CHUNK_LIMIT = 2**31


def _h5py() -> ModuleType:
    # Imported on use: h5py is in the extra "data", which not everybody installs.
    return extras.require("h5py", extra="data")


def open_file(path: Path, expected: str) -> h5py.File:
    """Opens a file for reading. expected: what it should be, for messages."""
    # Both would otherwise end in an HDF5 error that does not tell what happened: a directory, or
    # the small text file that Git LFS leaves in place of a file that it did not download.
    if not path.is_file():
        raise UserError(f"{path}: not a file; expected {expected}.")
    refuse_pointer(path)
    library = _h5py()
    with as_user_error(f"{path}: not an HDF5 file, or truncated"):
        return library.File(path, "r")


def child(group: h5py.Group, name: str, path: Path) -> Any:
    """The member of a group; raises a UserError if it is missing or not a hard link."""
    where = f"{path}: {group.name.rstrip('/')}/{name}"
    # getlink=True returns the link without following it. A soft link may lead in a circle, and an
    # external link into any file that the user may read. Only a hard link is the member itself.
    with as_user_error(f"{where}: can't be read"):
        link = group.get(name, getlink=True)
        if link is None:
            raise UserError(f"{where}: missing.")
        if not isinstance(link, _h5py().HardLink):
            raise UserError(f"{where}: expected the data, got a link ({type(link).__name__}).")
        return group[name]


def subgroup(group: h5py.Group, name: str, path: Path) -> h5py.Group:
    """The subgroup of this name; raises a UserError if it is anything but a group."""
    item = child(group, name, path)
    if not isinstance(item, _h5py().Group):
        raise UserError(f"{path}: {item.name}: expected a group, got a {type(item).__name__}.")
    return item


def is_array(group: h5py.Group, name: str) -> bool:
    """Whether a member is a dataset of the group's own; links are not followed."""
    library = _h5py()
    with as_user_error(f"{group.file.filename}: {group.name}/{name}: can't be read"):
        if not isinstance(group.get(name, getlink=True), library.HardLink):
            return False
        return group.get(name, getclass=True) is library.Dataset


def header(group: h5py.Group, name: str, path: Path) -> Header:
    """Shape and type of a member that should be a dataset [T, ...], or why it can't be read.

    Groups, texts and single values are its problem. Links, numbers in other files and numbers
    that were never written are its damage.
    """
    where = f"{path}: {group.name}/{name}: "
    try:
        item = child(group, name, path)
        with as_user_error(f"{where}can't be read"):
            return _header(item)
    except UserError as error:
        # The message names the place again where it is used.
        return Header(damage=str(error).removeprefix(where).rstrip("."))


def _header(item: Any) -> Header:
    if not isinstance(item, _h5py().Dataset):
        # Its members are named, not opened: a group may contain itself.
        inside = f" of {', '.join(list(item)[:5])}" if isinstance(item, _h5py().Group) else ""
        kind = type(item).__name__.lower()
        return Header(problem=f"expected an array [T, ...], got a {kind}{inside}")
    # Strings of variable length and references are objects in h5py.
    if item.dtype.hasobject:
        return Header(problem=f"expected numbers, got objects ({item.dtype})")
    # A virtual dataset is assembled from other datasets; an external one is in a raw file beside.
    if item.is_virtual or item.external:
        return Header(damage="expected the data, got a reference to other files")
    checked = numbers(item.shape or (), item.dtype)
    # Too few bytes or chunks: the copy was interrupted, or the recording was.
    if not checked.problem and (stored := _stored_too_little(item)):
        return Header(
            damage=f"expected {list(item.shape)} {item.dtype}, got {stored}, which HDF5 would "
            "read as zeros. Copy it again"
        )
    return checked


def _stored_too_little(item: h5py.Dataset) -> str:
    """Describes what is stored of an incomplete dataset; "" if the dataset is complete."""
    if 0 in item.shape:  # no numbers, so none can be missing
        return ""
    # Contiguous layout: one block of bytes, allocated in full when the first number is written.
    if item.chunks is None:
        size = math.prod(item.shape) * item.dtype.itemsize
        stored = item.id.get_storage_size()
        return "" if stored >= size else f"{stored} of {size} bytes"
    # Chunked layout. Chunks may be compressed, so their decoded size has to be bounded.
    if math.prod(item.chunks) * item.dtype.itemsize > CHUNK_LIMIT:
        return f"chunks of {list(item.chunks)}, more than {CHUNK_LIMIT / 2**30:.0f} GiB each"
    # Chunks are counted, not read: a header may claim 2^40 steps. Each axis is rounded up, since
    # its last chunk may reach beyond the dataset.
    total = math.prod(-(-n // chunk) for n, chunk in zip(item.shape, item.chunks))
    stored = item.id.get_num_chunks()
    return "" if stored == total else f"{stored} of {total} chunks"


def read(item: h5py.Dataset) -> np.ndarray:
    """All numbers of a dataset."""
    with as_user_error(f"{item.file.filename}: {item.name}: can't be decoded"):
        return np.asarray(item[...])


def names(item: h5py.Dataset) -> Sequence[str]:
    """The strings of a dataset of names."""
    # h5py returns strings of fixed length as bytes.
    values = np.ravel(read(item))
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]
