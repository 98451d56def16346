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

from dpjax.data import check, frames, images
from dpjax.data.episodes import Episodes
from dpjax.errors import UserError, choices

IMAGE_MEMORY = 2**32  # bytes of decoded images of one key before they go to disk


class Buffer(NamedTuple):
    """What a replay buffer holds that can be converted, and what it can't.

    episodes: the columns, checked; those of images [H, W, 3] as uint8 `frames.Frames`.
    left_out: {key: why}.
    """

    episodes: Episodes
    left_out: dict[str, str]


def load(source: str | Path, keys: Sequence[str] | None = None) -> Buffer:
    """The columns of a replay buffer; `keys`: these and "action" only."""
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
        elif len(shapes[key][0]) == 4:
            columns[key] = _images(path / "data" / key)
        else:
            columns[key] = _array(path / "data" / key)
    numbers, cameras = frames.split(columns)
    check.check_columns(numbers, ends, str(path))
    for key, column in cameras.items():
        check.check_ends(ends, len(column.rows), f"{path}: {key}")
    return Buffer(Episodes(columns, ends, str(path)), left_out)


def episodes(buffer: Episodes) -> Iterator[Mapping[str, np.ndarray]]:
    """The episodes {key: [T, ...]} one by one."""
    numbers, cameras = frames.split(buffer.columns)
    for start, end in zip(buffer.starts, buffer.ends):
        rows = np.arange(start, end)
        pixels = {key: column.read(rows) for key, column in cameras.items()}
        yield {key: column[start:end] for key, column in numbers.items()} | pixels


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
    if len(shape) == 4 and shape[-1] == 3 and dtype in (np.uint8, np.float32):
        return ""
    if len(shape) > 3:
        return f"images are [N, H, W, 3], and it has shape {list(shape)} of {dtype}"
    if dtype not in (np.float32, np.float64):
        return f"only float32 and float64 are converted, and it is {dtype}"
    return ""


def _images(path: Path) -> frames.Frames:
    """Images as uint8, chunk by chunk: the original keeps pixels as float32."""
    array, store = _open(path), frames.Store(limit=IMAGE_MEMORY)
    for start in range(0, array.shape[0], array.chunks[0]):
        part = _read(array, path, slice(start, start + array.chunks[0]))
        pixels = images.as_pixels(part)
        if pixels is None:
            i = start + next(i for i, row in enumerate(part) if images.as_pixels(row) is None)
            raise UserError(
                f"{path}: row {i}: expected whole numbers from 0 to 255, got {part.min():g} to "
                f"{part.max():g} in its chunk."
            )
        store.append(pixels)
    return store.frames()


def _array(path: Path) -> np.ndarray:
    """A whole array, float32 where it was float64."""
    array = _read(_open(path), path, ...)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _open(path: Path) -> zarr.Array:
    """An array of which every chunk is present."""
    meta = _meta(path / ".zarray")
    counts = [-(-n // chunk) for n, chunk in zip(meta["shape"], meta["chunks"])]
    names = [meta["separator"].join(map(str, index)) for index in product(*map(range, counts))]
    missing = [name for name in names if not (path / name).is_file()]
    if missing:
        raise UserError(
            f"{path}: expected {len(names)} chunk files, {len(missing)} are missing, the first "
            f"is {missing[0]}. zarr would read them as zeros: copy the buffer again."
        )
    return zarr.open_array(str(path), mode="r")


def _read(array: zarr.Array, path: Path, rows) -> np.ndarray:
    try:
        return np.asarray(array[rows])
    except Exception as error:  # whatever the codec of the chunk raises
        raise UserError(
            f"{path}: a chunk can't be decoded ({type(error).__name__}: {str(error)[:120]}). "
            "Copy the buffer again."
        ) from error
