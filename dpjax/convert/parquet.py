"""Columns of Parquet files as numpy arrays, read one row group at a time."""

from __future__ import annotations

from collections.abc import Sequence
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dpjax.convert.source import Feature, as_user_error
from dpjax.core import extras
from dpjax.core.errors import UserError

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

# Bytes of a row group, decoded. It is read as a whole, so this bounds the memory.
GROUP_LIMIT = 2**32
# The column by which rows of an episode are recognized in a file that several episodes share.
INDEX = "episode_index"
# By numpy's dtype.kind. A float32 that was stored as a float64 is accepted, a text is not.
FAMILIES = {"f": "float", "i": "integer", "u": "integer", "b": "bool"}


def _open(file: Path, columns: Sequence[str]) -> pq.ParquetFile:
    """Opens a file; raises a UserError if it lacks one of the columns."""
    pq = extras.require("pyarrow.parquet", extra="data")
    with as_user_error(f"{file}: not a Parquet file, or truncated"):
        opened = pq.ParquetFile(file)
        names = opened.schema_arrow.names
    for column in columns:
        if column not in names:
            raise UserError(f"{file}: expected a column {column!r}, got {', '.join(names)[:200]}.")
    return opened


# Episodes that follow each other share a row group: it is decoded once.
@functools.lru_cache(maxsize=1)
def _read_group(file: Path, modified: int, number: int, columns: tuple[str, ...]) -> pa.Table:
    """Row group `number` of a file.

    modified: the file's time, only so that the cache doesn't return a group of an older file.
    """
    # The footer has the size: nothing is decoded for this.
    opened = _open(file, columns)
    size = opened.metadata.row_group(number).total_byte_size
    if size > GROUP_LIMIT:
        raise UserError(
            f"{file}: row group {number}: expected at most {GROUP_LIMIT / 2**30:.0f} GiB, got "
            f"{size / 2**30:.1f}: write it with smaller ones."
        )
    with as_user_error(f"{file}: row group {number} can't be read"):
        return opened.read_row_group(number, columns=list(columns))


def read_rows(file: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """All rows as dicts of Python values; raises a UserError if one of them is null."""
    # Row group by row group, although all rows are kept: it is the check of sizes that matters.
    opened = _open(file, columns)
    rows = []
    for number in range(opened.num_row_groups):
        table = _read_group(file, file.stat().st_mtime_ns, number, tuple(columns))
        for column in columns:
            if table[column].null_count:
                raise UserError(f"{file}: {column}: expected a value in every row, got null.")
        with as_user_error(f"{file}: a row can't be read"):
            rows += table.to_pylist()
    return rows


def read_episode(file: Path, columns: Sequence[str], index: int | None, length: int) -> pa.Table:
    """The rows of one episode.

    index: the episode's; None: the file has no other episode.
    length: how many rows it must have, otherwise a UserError is raised.
    """
    pa = extras.require("pyarrow", extra="data")
    pc = extras.require("pyarrow.compute", extra="data")
    # Each column once, and the index if rows are chosen by it.
    wanted = tuple(dict.fromkeys([*columns, *([] if index is None else [INDEX])]))
    opened = _open(file, wanted)
    # An episode may be spread over several row groups, and share each with others.
    parts = []
    for number in range(opened.num_row_groups):
        if index is None or _may_have(opened, number, index):
            part = _read_group(file, file.stat().st_mtime_ns, number, wanted)
            parts.append(part if index is None else part.filter(pc.equal(part[INDEX], index)))
    table = pa.concat_tables(parts) if parts else opened.schema_arrow.empty_table()
    # A row more or less would shift all that follow against the video.
    if len(table) != length:
        which = "" if index is None else f" of episode {index}"
        raise UserError(f"{file}: expected {length} rows{which} by meta/, got {len(table)}.")
    return table


def _may_have(opened: pq.ParquetFile, number: int, index: int) -> bool:
    """Whether a row group may have rows of an episode, by the group's least and largest index."""
    # Statistics are optional. Without them the group is read, and its rows are filtered.
    group = opened.metadata.row_group(number)
    columns = map(group.column, range(group.num_columns))
    statistics = next(column for column in columns if column.path_in_schema == INDEX).statistics
    if statistics is None or not statistics.has_min_max:
        return True
    return statistics.min <= index <= statistics.max


def to_array(column: pa.ChunkedArray, feature: Feature | None, where: str) -> np.ndarray:
    """A column as [T, *feature.shape]; as float64 [T] if `feature` is None.

    Raises a UserError if the column's shape or type is not that of the feature.
    """
    pa = extras.require("pyarrow", extra="data")
    flat, shape = _flatten(column, where)
    types = pa.types
    if not (types.is_integer(flat.type) or types.is_floating(flat.type)
            or types.is_boolean(flat.type)):  # fmt: skip
        raise UserError(f"{where}: expected numbers, got {flat.type}.")
    # All numbers of all rows, one after the other. Bools are stored as bits and have to be copied.
    values = flat.to_numpy(zero_copy_only=False)
    if feature is None:
        return values.astype(np.float64)
    # A feature of shape [1] may be stored as plain numbers.
    if shape != feature.shape and not (shape == () and feature.shape == (1,)):
        raise UserError(
            f"{where}: expected shape {list(feature.shape)} by info.json, got {list(shape)}."
        )
    if FAMILIES.get(values.dtype.kind) != FAMILIES.get(feature.dtype.kind):
        raise UserError(f"{where}: expected {feature.dtype} by info.json, got {values.dtype}.")
    return values.reshape(len(column), *feature.shape)


def _flatten(column: pa.ChunkedArray, where: str) -> tuple[pa.Array, tuple[int, ...]]:
    """The numbers in a column's nested lists, and the shape of one row.

    Raises a UserError if there is a null, or if lists of one level differ in length.
    """
    pa = extras.require("pyarrow", extra="data")
    pc = extras.require("pyarrow.compute", extra="data")
    flat = column.combine_chunks()
    shape: list[int] = []
    while True:  # one turn per level of lists
        if flat.null_count:
            raise UserError(f"{where}: expected a number in every row, got null.")
        # Hugging Face's datasets wrap arrays of several dimensions into a type of their own.
        if isinstance(flat, pa.ExtensionArray):
            flat = flat.storage
        elif isinstance(flat, (pa.ListArray, pa.LargeListArray, pa.FixedSizeListArray)):
            sizes = pc.unique(pc.list_value_length(flat)).to_pylist()
            if len(sizes) > 1:
                raise UserError(f"{where}: expected lists of one length, got {sorted(sizes)[:4]}.")
            shape += sizes
            flat = flat.flatten()
        else:
            return flat, tuple(shape)


def image_bytes(column: pa.ChunkedArray, where: str) -> list[bytes]:
    """The encoded images of a column {bytes, path}, one per row."""
    pa = extras.require("pyarrow", extra="data")
    # The type of Hugging Face's images, {bytes, path}. A path alone would lead to another file.
    array = column.combine_chunks()
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if not pa.types.is_struct(array.type) or array.type.get_field_index("bytes") < 0:
        raise UserError(f"{where}: expected images as bytes, got {array.type}.")
    payloads = array.field("bytes").to_pylist()
    if None in payloads:
        raise UserError(
            f"{where}: row {payloads.index(None)}: expected an image's bytes, got null."
        )
    return payloads
