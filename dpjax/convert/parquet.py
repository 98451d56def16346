"""Reads columns of Parquet files as numpy arrays, one row group at a time."""

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

# Largest row group in bytes, decoded. A row group is read as a whole, so this bounds the memory.
GROUP_LIMIT = 2**32
# The column with the number of each row's episode, in a file that several episodes share.
INDEX = "episode_index"
# {numpy's dtype.kind: family}. Types of one family may differ in size: a column of float64 is
# accepted for a feature of float32.
FAMILIES = {"f": "float", "i": "integer", "u": "integer", "b": "bool"}


def _open(file: Path, columns: Sequence[str]) -> pq.ParquetFile:
    """Opens a file; raises a UserError if it lacks one of the columns."""
    pq = extras.require("pyarrow.parquet", extra="data")
    # Only the footer is read here.
    with as_user_error(f"{file}: not a Parquet file, or truncated"):
        opened = pq.ParquetFile(file)
        names = opened.schema_arrow.names
    for column in columns:
        if column not in names:
            raise UserError(f"{file}: expected a column {column!r}, got {', '.join(names)[:200]}.")
    return opened


# Consecutive episodes often share a row group: the last one is cached, so it is decoded once.
@functools.lru_cache(maxsize=1)
def _read_group(file: Path, modified: int, number: int, columns: tuple[str, ...]) -> pa.Table:
    """The columns of row group `number` of a file.

    modified: the file's modification time. It is part of the cache's key, so that a file that was
        written again is read again.
    """
    # The footer has the decoded size, so a group that is too large costs no memory.
    opened = _open(file, columns)
    size = opened.metadata.row_group(number).total_byte_size
    if size > GROUP_LIMIT:
        raise UserError(
            f"{file}: row group {number}: expected at most {GROUP_LIMIT / 2**30:.0f} GiB, got "
            f"{size / 2**30:.1f}: write it with smaller ones."
        )
    with as_user_error(f"{file}: row group {number} can't be read"):
        return opened.read_row_group(number, columns=list(columns))


def column_names(file: Path) -> list[str]:
    """The names of a file's columns; only its footer is read."""
    return list(_open(file, ()).schema_arrow.names)


def read_rows(file: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """All rows as dicts of Python values; raises a UserError if one of them is null."""
    # All rows are kept, but they are read by row group, because `_read_group` bounds the size.
    opened = _open(file, columns)
    rows = []
    for number in range(opened.num_row_groups):
        table = _read_group(file, file.stat().st_mtime_ns, number, tuple(columns))
        # A null would become None, which no caller expects.
        for column in columns:
            if table[column].null_count:
                raise UserError(f"{file}: {column}: expected a value in every row, got null.")
        with as_user_error(f"{file}: a row can't be read"):
            rows += table.to_pylist()
    return rows


def read_episode(file: Path, columns: Sequence[str], index: int | None, length: int) -> pa.Table:
    """The rows of one episode, as a table of `columns`.

    index: number of the episode; None if the file holds this episode only.
    length: number of rows by meta/; any other number raises a UserError.
    """
    pa = extras.require("pyarrow", extra="data")
    pc = extras.require("pyarrow.compute", extra="data")
    # Each column once; the index too if rows have to be filtered by it.
    wanted = tuple(dict.fromkeys([*columns, *([] if index is None else [INDEX])]))
    opened = _open(file, wanted)
    # An episode may be spread over several row groups, and share each of them with other episodes.
    parts = []
    for number in range(opened.num_row_groups):
        if index is None or _may_have(opened, number, index):
            part = _read_group(file, file.stat().st_mtime_ns, number, wanted)
            parts.append(part if index is None else part.filter(pc.equal(part[INDEX], index)))
    table = pa.concat_tables(parts) if parts else opened.schema_arrow.empty_table()
    # One row too many or too few would shift all later steps against the frames of the video.
    if len(table) != length:
        which = "" if index is None else f" of episode {index}"
        raise UserError(f"{file}: expected {length} rows{which} by meta/, got {len(table)}.")
    return table


def _may_have(opened: pq.ParquetFile, number: int, index: int) -> bool:
    """Whether a row group can contain an episode, by the footer's minimum and maximum index."""
    # The footer describes a group column by column. Its statistics are optional: without them
    # the group is read, and `read_episode` filters its rows.
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
    # All numbers of all rows, flat. zero_copy_only=False, since bools are stored as bits, which
    # numpy can only hold as a copy.
    values = flat.to_numpy(zero_copy_only=False)
    if feature is None:
        return values.astype(np.float64)
    # A feature of shape [1] may be stored without lists.
    if shape != feature.shape and not (shape == () and feature.shape == (1,)):
        raise UserError(
            f"{where}: expected shape {list(feature.shape)} by info.json, got {list(shape)}."
        )
    if FAMILIES.get(values.dtype.kind) != FAMILIES.get(feature.dtype.kind):
        raise UserError(f"{where}: expected {feature.dtype} by info.json, got {values.dtype}.")
    return values.reshape(len(column), *feature.shape)


def _flatten(column: pa.ChunkedArray, where: str) -> tuple[pa.Array, tuple[int, ...]]:
    """The numbers of a column of nested lists as one flat array, and the shape of one row.

    Raises a UserError if there is a null, or if the lists of one level differ in length.
    """
    pa = extras.require("pyarrow", extra="data")
    pc = extras.require("pyarrow.compute", extra="data")
    flat = column.combine_chunks()
    shape: list[int] = []
    # Each pass removes the outermost level of lists, and its length becomes one axis of a row.
    while True:
        if flat.null_count:
            raise UserError(f"{where}: expected a number in every row, got null.")
        # Hugging Face datasets wrap arrays of several dimensions in an extension type.
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
    """The encoded images of a column of structs {bytes, path}, one per row."""
    pa = extras.require("pyarrow", extra="data")
    # Hugging Face's type of images. Only its bytes are used: a path may lead to any file.
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
