"""The replay buffer of Chi et al.'s code: a zarr v2 directory.

    data/<key>         [N, ...]  all steps of all episodes
    meta/episode_ends  [E]       the row after the last one of each episode

zarr reads a chunk that isn't there as zeros, without a word, so that a copy cut short
is a data set with an arm at the origin. The chunks are counted here before any is read.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import zarr

from dpjax.data import check
from dpjax.data.episodes import Episodes
from dpjax.errors import UserError, choices


class Buffer(NamedTuple):
    """What a replay buffer holds that can be converted, and what it can't.

    episodes: the low-dim columns, checked.
    left_out: {key: why}.
    """

    episodes: Episodes
    left_out: dict[str, str]


def load(source: str | Path, keys: Sequence[str] | None = None) -> Buffer:
    """The low-dim float columns of a replay buffer; `keys`: these and "action" only."""
    path = Path(source)
    shapes = _shapes(path)
    ends = _array(path / "meta" / "episode_ends").astype(np.int64)
    wanted = list(shapes) if keys is None else list(dict.fromkeys([*keys, "action"]))
    columns, left_out = {}, {}
    for key in wanted:
        if key not in shapes:
            raise UserError(f"{path}: no key {key!r}; {choices(key, shapes)}.")
        why = _why_not(*shapes[key])
        if why and (keys is not None or key == "action"):
            raise UserError(f"{path}: data/{key} can't be converted: {why}.")
        if why:
            left_out[key] = why
        else:
            columns[key] = _array(path / "data" / key)
    check.check_columns(columns, ends, str(path))
    return Buffer(Episodes(columns, ends, str(path)), left_out)


def episodes(buffer: Episodes) -> Iterator[Mapping[str, np.ndarray]]:
    """The episodes {key: [T, ...]} one by one."""
    for start, end in zip(buffer.starts, buffer.ends):
        yield {key: column[start:end] for key, column in buffer.columns.items()}


def _shapes(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """{key: (shape [N, ...], dtype)} of data/*, from the .zarray files alone."""
    if not path.is_dir():
        raise UserError(f"{path}: no such directory; expected a zarr replay buffer.")
    found = sorted((path / "data").glob("*/.zarray"))
    if not found:
        raise UserError(f"{path}: not a zarr (v2) replay buffer: expected data/<key>/.zarray.")
    if not (path / "meta" / "episode_ends" / ".zarray").is_file():
        raise UserError(f"{path}: not a replay buffer: expected meta/episode_ends.")
    shapes = {}
    for file in found:
        meta = _meta(file)
        shapes[file.parent.name] = tuple(meta["shape"]), np.dtype(meta["dtype"])
    return shapes


def _meta(file: Path) -> dict:
    try:
        meta = json.loads(file.read_text())
        return {key: meta[key] for key in ("shape", "chunks", "dtype")} | {
            "separator": meta.get("dimension_separator", ".")
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: can't be read ({error}). Copy it again.") from error


def _why_not(shape: tuple[int, ...], dtype: np.dtype) -> str:
    if len(shape) > 3:
        return f"images are not converted yet, and it has shape {list(shape)}"
    if dtype not in (np.float32, np.float64):
        return f"only float32 and float64 are converted, and it is {dtype}"
    return ""


def _array(path: Path) -> np.ndarray:
    """A whole array, float32 where it was float64, every chunk of it present."""
    meta = _meta(path / ".zarray")
    counts = [-(-n // chunk) for n, chunk in zip(meta["shape"], meta["chunks"])]
    names = [meta["separator"].join(map(str, index)) for index in product(*map(range, counts))]
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        raise UserError(
            f"{path}: expected {len(names)} chunk files, {len(missing)} are missing, the first "
            f"is {missing[0]}. zarr would read them as zeros: copy the buffer again."
        )
    try:
        array = np.asarray(zarr.open_array(str(path), mode="r")[...])
    except Exception as error:  # whatever the codec of the chunk raises
        raise UserError(
            f"{path}: a chunk can't be decoded ({type(error).__name__}: {str(error)[:120]}). "
            "Copy the buffer again."
        ) from error
    return array.astype(np.float32) if array.dtype == np.float64 else array
