"""Reads arrays of a zarr v2 hierarchy in a directory or a zip.

A chunk that is not stored consists of the array's fill value (zarr_chunks.py looks for such). The
zarr library allocates as much memory as a compressed chunk claims to need; here no chunk is
decompressed to more than its array's description says.
"""

from collections.abc import Callable, Iterator
import contextlib
import functools
from itertools import product
import json
import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from dpjax.convert import untrusted_zip, zarr_codecs
from dpjax.convert.source import as_user_error, plain_files
from dpjax.core.errors import UserError

# Files that describe a group, and copies of what arrays say.
GROUP_FILES = (".zgroup", ".zattrs", ".zmetadata", "zarr.json")
META_LIMIT = 2**20  # largest .zarray in bytes; usual ones are a few hundred bytes of JSON


class Unsupported(UserError):
    """An array that is intact and can't be converted."""


class Store(NamedTuple):
    """The files of a hierarchy.

    path: the directory or zip, for messages. names: relative paths of the files in it.
    read: (name, limit) -> the first bytes of that file, at most limit + 1.
    """

    path: Path
    names: frozenset[str]
    read: Callable[[str, int], bytes]


class Array(NamedTuple):
    """An array's description, from its .zarray.

    store, name: where its files are. shape, chunks: of the array and of one chunk.
    order: of the numbers in a chunk, as in numpy. codec: "compressor"; {} for none.
    separator: between the indices in a chunk's file name.
    fill: the number in chunks that are not stored; None if the description has none.
    """

    store: Store
    name: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype
    order: Literal["C", "F"]
    codec: dict[str, Any]
    separator: str
    fill: np.generic | None

    def __str__(self) -> str:
        return f"{self.store.path / self.name}"


@contextlib.contextmanager
def open_store(path: Path) -> Iterator[Store]:
    """The store in a directory or a zip file."""
    # Names are listed once, so that looking up a chunk does not access the disk.
    if path.is_dir():
        files = plain_files(path)
        names = frozenset(file.relative_to(path).as_posix() for file in files)
        yield Store(path, names, lambda name, limit: _read_file(path / name, limit))
    elif path.is_file():
        with untrusted_zip.open_zip(path) as archive:
            names = frozenset(item.filename for item in archive.infolist() if not item.is_dir())
            read = functools.partial(untrusted_zip.read, path, archive)
            yield Store(path, names, read)
    else:
        raise UserError(f"{path}: no such directory or zip; expected a zarr replay buffer.")


def _read_file(file: Path, limit: int) -> bytes:
    with as_user_error(f"{file}: can't be read"), open(file, "rb") as opened:
        return opened.read(limit + 1)


def read_array(store: Store, name: str) -> Array:
    """An array's description, from <name>/.zarray; none of its numbers are read."""
    # {"shape": [N, ...], "chunks": [...], "dtype": "<f4", "compressor": {"id": "blosc"}, ...}
    where = store.path / name / ".zarray"
    with as_user_error(f"{where}: can't be read"):
        meta = json.loads(store.read(f"{name}/.zarray", META_LIMIT))
        array = Array(
            store=store,
            name=name,
            shape=tuple(int(n) for n in meta["shape"]),
            chunks=tuple(int(n) for n in meta["chunks"]),
            dtype=np.dtype(meta["dtype"]),
            order=meta.get("order", "C"),
            codec=meta["compressor"] or {},
            separator=meta.get("dimension_separator", "."),
            fill=None,
        )
    shape = array.shape
    chunks = array.chunks
    if not shape:
        raise Unsupported(f"{where}: a single number, not one per step.")
    # The numbers may be hostile. They are Python integers, which don't overflow, and nothing is
    # allocated by them here.
    if len(shape) != len(chunks) or min(chunks) < 1 or min(shape) < 0:
        raise UserError(f"{where}: shape {list(shape)} and chunks {list(chunks)} don't fit.")
    if meta.get("zarr_format") != 2 or array.order not in "CF" or array.separator not in "./":
        raise UserError(f"{where}: expected zarr format 2, order C or F, separator . or /.")
    # Objects are decoded by unpickling, which can run code; so can some filters.
    if array.dtype.hasobject or meta.get("filters") or not isinstance(array.codec, dict):
        raise Unsupported(
            f"{where}: dtype {meta['dtype']!r} with filters {meta.get('filters')} can't be read: "
            "expected numbers without filters (objects may hide code)."
        )
    return array._replace(fill=_fill_value(meta.get("fill_value"), array.dtype, where))


def read_attributes(store: Store, name: str) -> list[str]:
    """The names of the attributes in a file .zattrs; [] if it can't be read."""
    try:
        attributes = json.loads(store.read(name, META_LIMIT))
    except (ValueError, UserError):
        return []
    # xarray's names of the axes are no data.
    names = attributes if isinstance(attributes, dict) else ()
    return [key for key in names if key != "_ARRAY_DIMENSIONS"]


def _fill_value(value: Any, dtype: np.dtype, where: Path) -> np.generic | None:
    """The number of chunks that are not stored: a number, or "NaN", "Infinity", "-Infinity"."""
    if value is None or dtype.kind not in "fiub":
        return None
    with as_user_error(f"{where}: fill_value {value!r} is not a {dtype}"):
        return np.asarray(value).astype(dtype)[()]


def chunk_counts(array: Array) -> list[int]:
    """The number of chunks along each axis."""
    # Rounded up: the last chunk of an axis may reach beyond the array.
    return [-(-n // chunk) for n, chunk in zip(array.shape, array.chunks)]


def chunk_name(array: Array, index: tuple[int, ...]) -> str:
    """The file of a chunk, as the store names it."""
    # "data/img/3.0.0.0" with the separator ".", "data/img/3/0/0/0" with "/".
    return f"{array.name}/{array.separator.join(map(str, index))}"


def block_shape(array: Array) -> tuple[int, ...]:
    """The shape of a block: all chunks that share their first index, joined along the others.

    They are decoded together, since every step has numbers in each of them.
    """
    sizes = [count * chunk for count, chunk in zip(chunk_counts(array), array.chunks)]
    return (array.chunks[0], *sizes[1:])


def reader(array: Array) -> Callable[[int, int], np.ndarray]:
    """Returns a function (start, end) -> array[start:end], [end - start, ...].

    The last decoded block is cached, since consecutive episodes often share a block.
    """
    cached_block = functools.lru_cache(maxsize=1)(lambda i: _block(array, i))

    def read(start: int, end: int) -> np.ndarray:
        # Steps start to end are in blocks start // size to (end - 1) // size. Of the first and the
        # last block only a part is needed.
        size = array.chunks[0]
        parts = [
            cached_block(i)[max(start - i * size, 0) : end - i * size]
            for i in range(start // size, -(-end // size))
        ]
        # A single part is a view of the cached block, so it is copied.
        return np.concatenate(parts) if len(parts) != 1 else parts[0].copy()

    return read


def _block(array: Array, i: int) -> np.ndarray:
    """Decodes the chunks whose first index is i: [chunks[0], *array.shape[1:]]."""
    # Each chunk is decoded and copied to its place in the block.
    counts = chunk_counts(array)[1:]
    block = np.empty(block_shape(array), array.dtype)
    for index in product(*map(range, counts)):
        name = chunk_name(array, (i, *index))
        place = [slice(k * n, (k + 1) * n) for k, n in zip(index, array.chunks[1:])]
        is_stored = name in array.store.names
        block[(slice(None), *place)] = _decode(array, name) if is_stored else array.fill
    # The last chunk along each axis is padded to its full size. The padding is cut off, except on
    # the first axis, where no episode reaches into it.
    return block[(slice(None), *(slice(n) for n in array.shape[1:]))]


def _decode(array: Array, name: str) -> np.ndarray:
    """Reads and decodes one chunk, [*array.chunks]."""
    size = math.prod(array.chunks) * array.dtype.itemsize
    limit = 2 * size + 2**16  # generous, since compressing noise makes it a little larger
    # `read` returns at most limit + 1 bytes, so that a file that is too large is noticed below.
    raw = array.store.read(name, limit)
    chunk = name.removeprefix(array.name + "/")
    with as_user_error(f"{array}: a chunk can't be decoded: {chunk}"):
        if len(raw) > limit:
            raise ValueError(f"more than {limit} bytes for {size}")
        flat = zarr_codecs.decompress(raw, array.codec, size, array.dtype, str(array))
        if flat.nbytes != size:
            raise ValueError(f"{flat.nbytes} bytes, not {size}")
        # "C": the last index changes fastest; "F", as in Fortran: the first one.
        return np.frombuffer(flat, array.dtype).reshape(array.chunks, order=array.order)
