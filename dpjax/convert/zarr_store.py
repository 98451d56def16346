"""The files of a zarr v2 hierarchy, in a directory or a zip, and its chunks decoded.

zarr itself reads a chunk that isn't there as zeros, without a word, and gives a
compressed chunk as much memory as it claims to need. Here every chunk is there or
refused, and none becomes larger than its array says.
"""

from collections.abc import Callable, Iterator
import contextlib
import functools
from itertools import product
import json
import math
from pathlib import Path
import re
import struct
from typing import Any, NamedTuple
import zlib

import numcodecs
import numpy as np

from dpjax.convert import untrusted_zip
from dpjax.convert.source import reading
from dpjax.core.errors import UserError

BLOCK_LIMIT = 2**31  # bytes of the chunks of one first index, decoded
META_LIMIT = 2**20  # bytes of a .zarray
IMAGES = ("imagecodecs_jpeg2k", "imagecodecs_jpegxl", "imagecodecs_jpeg")


class Store(NamedTuple):
    """path: for messages. names: of its files. read: (name, limit in bytes) -> bytes."""

    path: Path
    names: frozenset[str]
    read: Callable[[str, int], bytes]


class Array(NamedTuple):
    """One array of a store: what its .zarray says. codec: {} for none."""

    store: Store
    name: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype
    order: str
    codec: dict[str, Any]
    separator: str

    def __str__(self) -> str:
        return f"{self.store.path / self.name}"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Store]:
    """The store in a directory or a zip file."""
    if path.is_dir():
        files = (file for file in path.rglob("*") if file.is_file())
        names = frozenset(file.relative_to(path).as_posix() for file in files)
        yield Store(path, names, lambda name, limit: _read(path / name, limit))
    elif path.is_file():
        with untrusted_zip.opened(path) as zipped:
            names = frozenset(item.filename for item in zipped.infolist() if not item.is_dir())
            yield Store(
                path, names, lambda name, limit: untrusted_zip.read(path, zipped, name, limit)
            )
    else:
        raise UserError(f"{path}: no such directory or zip; expected a zarr replay buffer.")


def _read(file: Path, limit: int) -> bytes:
    with open(file, "rb") as opened_file:
        return opened_file.read(limit + 1)


def array(store: Store, name: str) -> Array:
    """What <name>/.zarray says; nothing else is read."""
    where = store.path / name / ".zarray"
    with reading(f"{where}: can't be read"):
        meta = json.loads(store.read(f"{name}/.zarray", META_LIMIT))
        shape, chunks = (tuple(int(n) for n in meta[key]) for key in ("shape", "chunks"))
        dtype = np.dtype(meta["dtype"])
        found = Array(store, name, shape, chunks, dtype, meta.get("order", "C"),
                      meta["compressor"] or {}, meta.get("dimension_separator", "."))  # fmt: skip
    if len(shape) != len(chunks) or not shape or min(chunks) < 1 or min(shape) < 0:
        raise UserError(f"{where}: shape {list(shape)} and chunks {list(chunks)} don't fit.")
    if meta.get("zarr_format") != 2 or found.order not in "CF" or found.separator not in "./":
        raise UserError(f"{where}: expected zarr format 2, order C or F, separator . or /.")
    if dtype.hasobject or meta.get("filters") or not isinstance(found.codec, dict):
        raise UserError(
            f"{where}: dtype {meta['dtype']!r} with filters {meta.get('filters')} can't be read: "
            "expected numbers without filters (objects may hide code)."
        )
    return found


def check_chunks(array: Array) -> None:
    """Refuses an array of which a chunk is missing, or too large for the memory."""
    counts = _counts(array)
    total, prefix = math.prod(counts), f"{array.name}/"
    chunks = re.compile(r"\d+([./]\d+)*")
    inside = (name.removeprefix(prefix) for name in array.store.names if name.startswith(prefix))
    here = sum(chunks.fullmatch(name) is not None for name in inside)
    # One by one: a header that claims 2^40 chunks is to cost neither time nor memory.
    names = (_chunk(array, np.unravel_index(k, counts)) for k in range(total))
    missing = next((name for name in names if name not in array.store.names), None)
    if missing is not None:
        raise UserError(
            f"{array}: expected {total} chunk files, {total - here} are missing, the first is "
            f"{missing.removeprefix(prefix)}. zarr would read them as zeros: copy the buffer again."
        )
    size = _block_shape(array)
    if math.prod(size) * array.dtype.itemsize > BLOCK_LIMIT:
        raise UserError(
            f"{array}: chunks of {list(size)} {array.dtype} are more than "
            f"{BLOCK_LIMIT / 2**30:.0f} GiB: write it with smaller chunks."
        )


def _counts(array: Array) -> list[int]:
    return [-(-n // chunk) for n, chunk in zip(array.shape, array.chunks)]


def _chunk(array: Array, index: tuple[int, ...]) -> str:
    return f"{array.name}/{array.separator.join(map(str, index))}"


def _block_shape(array: Array) -> tuple[int, ...]:
    """The shape of all the chunks of one first index together."""
    others = (count * chunk for count, chunk in zip(_counts(array), array.chunks))
    return (array.chunks[0], *list(others)[1:])


def reader(array: Array) -> Callable[[int, int], np.ndarray]:
    """(start, end) -> rows; the block of chunks that was decoded last is kept."""
    cached = functools.lru_cache(maxsize=1)(lambda i: _block(array, i))

    def rows(start: int, end: int) -> np.ndarray:
        step = array.chunks[0]
        parts = [
            cached(i)[max(start - i * step, 0) : end - i * step]
            for i in range(start // step, -(-end // step))
        ]
        return np.concatenate(parts) if len(parts) != 1 else parts[0].copy()

    return rows


def _block(array: Array, i: int) -> np.ndarray:
    """Rows [chunks[0], ...] of the chunks whose first index is i."""
    counts = _counts(array)[1:]
    block = np.empty(_block_shape(array), array.dtype)
    for index in product(*map(range, counts)):  # as many as there are files
        name = _chunk(array, (i, *index))
        at = [slice(k * n, (k + 1) * n) for k, n in zip(index, array.chunks[1:])]
        block[(slice(None), *at)] = _decoded(array, name)
    return block[(slice(None), *(slice(n) for n in array.shape[1:]))]


def _decoded(array: Array, name: str) -> np.ndarray:
    size = math.prod(array.chunks) * array.dtype.itemsize
    limit = 2 * size + 2**16  # what doesn't compress grows a little
    raw = array.store.read(name, limit)
    with reading(f"{array}: a chunk can't be decoded: {name.removeprefix(array.name + '/')}"):
        if len(raw) > limit:
            raise ValueError(f"more than {limit} bytes for {size}")
        flat = _decompress(raw, array, size)
        if flat.nbytes != size:
            raise ValueError(f"{flat.nbytes} bytes, not {size}")
        return np.frombuffer(flat, array.dtype).reshape(array.chunks, order=array.order)


def _decompress(raw: bytes, array: Array, size: int) -> np.ndarray:
    """The bytes of a chunk; never more than `size` of them are made."""
    kind = array.codec.get("id")
    if kind is None:
        return np.frombuffer(raw, np.uint8)
    if kind in ("zlib", "gzip"):
        window = 15 if kind == "zlib" else 31
        return np.frombuffer(zlib.decompressobj(window).decompress(raw, size + 1), np.uint8)
    if kind in IMAGES:
        return _image(raw, array)
    if kind not in ("blosc", "zstd", "lz4"):
        raise UserError(
            f"{array}: its compressor {kind!r} isn't read; expected blosc, zstd, lz4, zlib, gzip, "
            f"{', '.join(IMAGES)} or none."
        )
    if kind == "blosc":  # it believes its header: sizes of the content and of the chunk
        content, _, whole = struct.unpack("<III", raw[4:16])
        if content != size or whole != len(raw):
            raise ValueError(f"{len(raw)} bytes where {whole} should be, {content} for {size}")
    out = np.empty(size, np.uint8)
    numcodecs.get_codec(array.codec).decode(raw, out=out)
    return out


def _image(raw: bytes, array: Array) -> np.ndarray:
    """A chunk that is an encoded image, as UMI and robomimic's image buffers have them."""
    try:
        from imagecodecs.numcodecs import register_codecs
    except ImportError:
        raise UserError(
            f"{array}: its chunks are compressed by {array.codec['id']}: pip install imagecodecs."
        ) from None
    register_codecs(verbose=False)
    found = np.asarray(numcodecs.get_codec(array.codec).decode(raw))
    if found.size != math.prod(array.chunks) or found.dtype != array.dtype:
        raise ValueError(f"an image {list(found.shape)} of {found.dtype}")
    return np.frombuffer(np.ascontiguousarray(found), np.uint8)
