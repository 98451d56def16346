"""Rows of a Parquet file, a row group at a time, as numpy arrays."""

from collections.abc import Sequence
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dpjax.convert.source import Kind, reading
from dpjax.core.errors import UserError

GROUP_LIMIT = 2**32  # bytes of a row group, decoded
INDEX = "episode_index"
KINDS = {"f": "float", "i": "integer", "u": "integer", "b": "bool"}


def _opened(file: Path, columns: Sequence[str]) -> pq.ParquetFile:
    """The file, which has these columns."""
    with reading(f"{file}: no Parquet, or cut"):
        opened = pq.ParquetFile(file)
        names = opened.schema_arrow.names
    for column in columns:
        if column not in names:
            raise UserError(f"{file}: expected a column {column!r}, got {', '.join(names)[:200]}.")
    return opened


# An episode's row groups are read once, though several episodes may share them.
@functools.lru_cache(maxsize=1)
def _group(file: Path, written: int, number: int, columns: tuple[str, ...]) -> pa.Table:
    """A row group; `written`: when the file was, or a new file would not be seen."""
    opened = _opened(file, columns)
    size = opened.metadata.row_group(number).total_byte_size
    if size > GROUP_LIMIT:
        raise UserError(
            f"{file}: row group {number}: expected at most {GROUP_LIMIT / 2**30:.0f} GiB, got "
            f"{size / 2**30:.1f}: write it with smaller ones."
        )
    with reading(f"{file}: row group {number} can't be read"):
        return opened.read_row_group(number, columns=list(columns))


def rows(file: Path, columns: Sequence[str]) -> list[dict[str, Any]]:
    """All rows as dicts of Python values; none of them may be null."""
    opened = _opened(file, columns)
    found = []
    for number in range(opened.num_row_groups):
        table = _group(file, file.stat().st_mtime_ns, number, tuple(columns))
        for column in columns:
            if table[column].null_count:
                raise UserError(f"{file}: {column}: expected a value in every row, got null.")
        with reading(f"{file}: a row can't be read"):
            found += table.to_pylist()
    return found


def episode(file: Path, columns: Sequence[str], index: int | None, length: int) -> pa.Table:
    """The rows of episode `index`, or all of them where it is None; `length` of them."""
    wanted = tuple(dict.fromkeys([*columns, *([] if index is None else [INDEX])]))
    opened = _opened(file, wanted)
    parts = []
    for number in range(opened.num_row_groups):
        if index is None or _may_hold(opened, number, index):
            part = _group(file, file.stat().st_mtime_ns, number, wanted)
            parts.append(part if index is None else part.filter(pc.equal(part[INDEX], index)))
    table = pa.concat_tables(parts) if parts else opened.schema_arrow.empty_table()
    if len(table) != length:
        which = "" if index is None else f" of episode {index}"
        raise UserError(f"{file}: expected {length} rows{which} by meta/, got {len(table)}.")
    return table


def _may_hold(opened: pq.ParquetFile, number: int, index: int) -> bool:
    """Whether a row group's statistics leave room for an episode."""
    group = opened.metadata.row_group(number)
    columns = map(group.column, range(group.num_columns))
    known = next(column for column in columns if column.path_in_schema == INDEX).statistics
    return known is None or not known.has_min_max or known.min <= index <= known.max


def numbers(column: pa.ChunkedArray, kind: Kind | None, where: str) -> np.ndarray:
    """A column as [T, *shape]; kind None: as float64 [T]."""
    flat, length, counts = column.combine_chunks(), len(column), []
    while True:
        if flat.null_count:
            raise UserError(f"{where}: expected a number in every row, got null.")
        if isinstance(flat, pa.ExtensionArray):
            flat = flat.storage
        elif isinstance(flat, (pa.ListArray, pa.LargeListArray, pa.FixedSizeListArray)):
            sizes = pc.unique(pc.list_value_length(flat)).to_pylist()
            if len(sizes) > 1:
                raise UserError(f"{where}: expected lists of one length, got {sorted(sizes)[:4]}.")
            counts += sizes
            flat = flat.flatten()
        else:
            break
    if not (pa.types.is_integer(flat.type) or pa.types.is_floating(flat.type)
            or pa.types.is_boolean(flat.type)):  # fmt: skip
        raise UserError(f"{where}: expected numbers, got {flat.type}.")
    x = flat.to_numpy(zero_copy_only=False)
    if kind is None:
        return x.astype(np.float64)
    got = tuple(counts)
    if got != kind.shape and not (got == () and kind.shape == (1,)):
        raise UserError(
            f"{where}: expected shape {list(kind.shape)} by info.json, got {list(got)}."
        )
    if KINDS.get(x.dtype.kind) != KINDS.get(kind.dtype.kind):
        raise UserError(f"{where}: expected {kind.dtype} by info.json, got {x.dtype}.")
    return x.reshape(length, *kind.shape)


def payloads(column: pa.ChunkedArray, where: str) -> list[bytes]:
    """The encoded images of a column {bytes, path}."""
    array = column.combine_chunks()
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if not pa.types.is_struct(array.type) or array.type.get_field_index("bytes") < 0:
        raise UserError(f"{where}: expected images as bytes, got {array.type}.")
    found = array.field("bytes").to_pylist()
    if None in found:
        raise UserError(f"{where}: row {found.index(None)}: expected an image's bytes, got null.")
    return found
