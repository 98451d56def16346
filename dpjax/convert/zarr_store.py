"""The files of a zarr v2 hierarchy, in a directory or a zip, and the numbers in its chunks.

zarr itself reads a missing chunk as zeros, without a warning, and gives a compressed chunk as
much memory as the chunk claims to need. Here a missing chunk is refused, and none becomes larger
than its array's description says.
"""

from collections.abc import Callable, Iterator
import contextlib
import functools
from itertools import product
import json
import math
from pathlib import Path
import re
from typing import Any, Literal, NamedTuple

import numpy as np

from dpjax.convert import untrusted_zip, zarr_codecs
from dpjax.convert.source import as_user_error
from dpjax.core.errors import UserError

# Bytes of the chunks that share their first index, decoded. They are decoded together, since a step
# has numbers in each of them.
BLOCK_LIMIT = 2**31
META_LIMIT = 2**20  # bytes of a .zarray, which is a few hundred bytes of JSON


class Store(NamedTuple):
    """The files of a hierarchy.

    path: for messages. names: of its files.
    read: (name, limit) -> at most limit + 1 bytes of that file.
    """

    path: Path
    names: frozenset[str]
    read: Callable[[str, int], bytes]


class Array(NamedTuple):
    """What an array's .zarray says. codec: of its chunks, {} for none."""

    store: Store
    name: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype
    order: Literal["C", "F"]
    codec: dict[str, Any]
    separator: str

    def __str__(self) -> str:
        return f"{self.store.path / self.name}"


@contextlib.contextmanager
def open_store(path: Path) -> Iterator[Store]:
    """The store in a directory or a zip file."""
    # Names are listed once: whether a chunk is there is then a look into a set.
    if path.is_dir():
        files = (file for file in path.rglob("*") if file.is_file())
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
    with open(file, "rb") as opened:
        return opened.read(limit + 1)


def read_array(store: Store, name: str) -> Array:
    """An array's description, from <name>/.zarray; none of its numbers are read."""
    # {"shape": [N, ...], "chunks": [...], "dtype": "<f4", "compressor": {"id": "blosc", ...}, ...}
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
        )
    shape = array.shape
    chunks = array.chunks
    # Python's integers: shapes may be hostile, and nothing is allocated by them here.
    if len(shape) != len(chunks) or not shape or min(chunks) < 1 or min(shape) < 0:
        raise UserError(f"{where}: shape {list(shape)} and chunks {list(chunks)} don't fit.")
    if meta.get("zarr_format") != 2 or array.order not in "CF" or array.separator not in "./":
        raise UserError(f"{where}: expected zarr format 2, order C or F, separator . or /.")
    # Objects are pickles, and a filter may run code as well.
    if array.dtype.hasobject or meta.get("filters") or not isinstance(array.codec, dict):
        raise UserError(
            f"{where}: dtype {meta['dtype']!r} with filters {meta.get('filters')} can't be read: "
            "expected numbers without filters (objects may hide code)."
        )
    return array


def check_chunks(array: Array) -> None:
    """Raises a UserError if a chunk's file is missing, or if chunks are too large for memory."""
    # zarr can leave out chunks that are all "fill_value", but replay buffers have every chunk: a
    # missing one was lost in a copy.
    counts = _counts(array)
    total = math.prod(counts)
    prefix = f"{array.name}/"
    pattern = re.compile(r"\d+([./]\d+)*")
    files = [name.removeprefix(prefix) for name in array.store.names if name.startswith(prefix)]
    present = sum(pattern.fullmatch(name) is not None for name in files)

    # One name at a time up to the first that is missing: a header may claim 2^40 chunks, and they
    # must cost neither time nor memory.
    indices = (np.unravel_index(k, counts) for k in range(total))
    names = (_chunk_name(array, tuple(map(int, index))) for index in indices)
    missing = next((name for name in names if name not in array.store.names), None)
    if missing is not None:
        raise UserError(
            f"{array}: expected {total} chunk files, {total - present} are missing, the first is "
            f"{missing.removeprefix(prefix)}. zarr would read them as zeros: copy the buffer again."
        )
    # Known by now: as many files as chunks. What one block of them takes is checked last.
    shape = _block_shape(array)
    if math.prod(shape) * array.dtype.itemsize > BLOCK_LIMIT:
        raise UserError(
            f"{array}: chunks of {list(shape)} {array.dtype} are more than "
            f"{BLOCK_LIMIT / 2**30:.0f} GiB: write it with smaller chunks."
        )


def _counts(array: Array) -> list[int]:
    """How many chunks there are along each axis."""
    # Rounded up: the last chunk of an axis may be partly beyond the array.
    return [-(-n // chunk) for n, chunk in zip(array.shape, array.chunks)]


def _chunk_name(array: Array, index: tuple[int, ...]) -> str:
    return f"{array.name}/{array.separator.join(map(str, index))}"


def _block_shape(array: Array) -> tuple[int, ...]:
    """The shape of a block: all chunks that share their first index, side by side."""
    sizes = [count * chunk for count, chunk in zip(_counts(array), array.chunks)]
    return (array.chunks[0], *sizes[1:])


def reader(array: Array) -> Callable[[int, int], np.ndarray]:
    """Returns a function (start, end) -> steps start to end of the array, [end - start, ...].

    The block that was decoded last is kept: episodes that follow each other share blocks.
    """
    cached_block = functools.lru_cache(maxsize=1)(lambda i: _block(array, i))

    def read(start: int, end: int) -> np.ndarray:
        # Blocks start // size to (end - 1) // size, the first and the last of them cut.
        size = array.chunks[0]
        parts = [
            cached_block(i)[max(start - i * size, 0) : end - i * size]
            for i in range(start // size, -(-end // size))
        ]
        # A single part is a view of the cached block: copy it.
        return np.concatenate(parts) if len(parts) != 1 else parts[0].copy()

    return read


def _block(array: Array, i: int) -> np.ndarray:
    """The chunks whose first index is i, [chunks[0], *array.shape[1:]]."""
    # Written block by block, and each chunk to its place in it.
    counts = _counts(array)[1:]
    block = np.empty(_block_shape(array), array.dtype)
    for index in product(*map(range, counts)):  # as many as there are files
        name = _chunk_name(array, (i, *index))
        place = [slice(k * n, (k + 1) * n) for k, n in zip(index, array.chunks[1:])]
        block[(slice(None), *place)] = _decode(array, name)
    # The last chunk of each axis is padded to its full size: the padding is cut off.
    return block[(slice(None), *(slice(n) for n in array.shape[1:]))]


def _decode(array: Array, name: str) -> np.ndarray:
    """One chunk, [*array.chunks]."""
    size = math.prod(array.chunks) * array.dtype.itemsize
    limit = 2 * size + 2**16  # noise grows a little when it is compressed
    # One byte more than the limit is read from a file that is too large, so it is noticed.
    raw = array.store.read(name, limit)
    chunk = name.removeprefix(array.name + "/")
    with as_user_error(f"{array}: a chunk can't be decoded: {chunk}"):
        if len(raw) > limit:
            raise ValueError(f"more than {limit} bytes for {size}")
        flat = zarr_codecs.decompress(raw, array.codec, size, array.dtype, str(array))
        if flat.nbytes != size:
            raise ValueError(f"{flat.nbytes} bytes, not {size}")
        # "F" is the order of Fortran: the first index changes fastest.
        return np.frombuffer(flat, array.dtype).reshape(array.chunks, order=array.order)
