"""Looks for chunks of a zarr array that are not stored, and for files that are no chunks.

A chunk that consists of the array's fill value need not be stored: that is zarr's rule, and writers
of 2025 and later make use of it. A copy that was interrupted looks the same, so missing chunks are
counted in a warning, which also names what else looks like an interrupted copy.
"""

import logging
import math

import numpy as np

from dpjax.convert.zarr_store import Array, block_shape, chunk_counts, chunk_name
from dpjax.core.errors import UserError
from dpjax.core.unread import listed, warn_unread

BLOCK_LIMIT = 2**31  # largest block in bytes, decoded
LARGEST_FILL = 10**7  # chunks that are not stored; more is a wrong header
DESCRIPTIONS = (".zarray", ".zattrs")  # the files of an array that are no chunks

log = logging.getLogger("dpjax")


def check_chunks(array: Array, *, complete: bool = False) -> None:
    """Warns of chunks that are not stored; refuses them if nothing says what they hold.

    complete: refuse them in any case.

    Raises a UserError for such chunks, and if chunks are too large for memory.
    """
    counts = chunk_counts(array)
    total = math.prod(counts)
    files = _files(array)
    others = [file for file in files if not _is_chunk(file, array, counts)]
    num_missing = total - (len(files) - len(others))
    if num_missing:
        text = _describe_missing(array, num_missing, total, others)
        if array.fill is None or complete:
            raise UserError(f"{text}: copy the buffer again.")
        # A header of 2^40 chunks and no file would otherwise be read as 2^40 zeros.
        if num_missing > LARGEST_FILL:
            raise UserError(f"{text}: more than {LARGEST_FILL} can't be right.")
        log.warning(
            "%s: they are %s, its fill_value, as zarr has it. If the buffer was copied, compare "
            "it with the original", text, array.fill,
        )  # fmt: skip
    warn_unread(str(array), others, "not chunks of its shape")
    # The memory of one block.
    shape = block_shape(array)
    if math.prod(shape) * array.dtype.itemsize > BLOCK_LIMIT:
        raise UserError(
            f"{array}: chunks of {list(shape)} {array.dtype} are more than "
            f"{BLOCK_LIMIT / 2**30:.0f} GiB: write it with smaller chunks."
        )


def _files(array: Array) -> list[str]:
    """The files of an array but for its descriptions, relative to it and in order."""
    prefix = f"{array.name}/"
    files = (name.removeprefix(prefix) for name in array.store.names if name.startswith(prefix))
    return sorted(file for file in files if file not in DESCRIPTIONS)


def _is_chunk(file: str, array: Array, counts: list[int]) -> bool:
    """Whether a file is a chunk of the array: "3.0.0" within its shape, not "3.0.0.part"."""
    parts = file.split(array.separator)
    if len(parts) != len(counts):
        return False
    # "03" is a number too, but no chunk has that name.
    return all(part in (str(k) for k in _number(part, n)) for part, n in zip(parts, counts))


def _number(part: str, count: int) -> list[int]:
    """[the number] if the part is one below `count`, otherwise []."""
    # Hostile names are long; no index has more than 20 digits.
    is_number = part.isascii() and part.isdigit() and len(part) <= 20
    return [int(part)] if is_number and int(part) < count else []


def _describe_missing(array: Array, num_missing: int, total: int, others: list[str]) -> str:
    """How many chunks are not stored, which is the first, and what is suspicious about it."""
    # A generator, which stops at the first missing name: a header may claim 2^40 chunks, and must
    # not cost time or memory.
    counts = chunk_counts(array)
    indices = (np.unravel_index(k, counts) for k in range(total))
    names = (chunk_name(array, tuple(map(int, index))) for index in indices)
    first = next(name for name in names if name not in array.store.names)
    text = (
        f"{array}: {num_missing} of {total} chunks are not stored, the first is "
        f"{first.removeprefix(array.name + '/')}"
    )
    if num_missing == total:
        text += " (none is there: if it is not constant, it was not copied)"
    if others:
        text += f" (beside {listed(others)}, as in a copy that was interrupted)"
    return text
