"""The interface of every format: demonstrations that are read one episode at a time.

To add a format, write one file in this folder and one line in `FORMATS` (__main__.py). The file
has a function `open_source(path, stack, ...) -> Source`, which

1. reads headers only, and refuses missing, damaged or hostile files with a one-line error that
   names the file (`as_user_error` turns a library's exceptions into such errors);
2. returns a `Source`: shape and type of every key, the length of every episode, and a function
   that reads one episode. Files that must stay open for that function are entered into `stack`;
3. logs what users should know with `logging.getLogger("dpjax")`;
4. imports optional libraries with `dpjax.core.extras.require`, inside its functions.

The rest is the same for all formats: selection.py chooses and renames keys, this module casts
numbers, and __main__.py writes the data set and reads it back.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import hashlib
import math
import os
from pathlib import Path
import re
from typing import Any, NamedTuple

import numpy as np

from dpjax.core.errors import UserError
from dpjax.data import images
from dpjax.data.rlds.columns import exact

# The name of the actions in every data set; everything else is an observation.
ACTION = "action"
# Largest episode in bytes, all its columns together. Only one episode is in memory at a time, so
# this bounds the memory of a conversion, whatever a source's headers claim.
EPISODE_LIMIT = 2**32

Columns = dict[str, np.ndarray]


class Feature(NamedTuple):
    """Shape of one step of a key, and the type of its numbers in the source."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Source(NamedTuple):
    """Demonstrations in another format.

    path: the file or directory, for messages.
    features: {key: Feature} of all keys, including those that can't be converted.
    lengths: [E] steps of each episode.
    read: (e, keys) -> {key: [T, ...]} of episode e, in the source's own types.
    names: {key: name in the data set}, for keys that are renamed.
    fps: steps per second; 0 if the source doesn't say.
    metadata: e -> {name: scalar}, which is stored with episode e.
    defaults: keys that are converted unless the user names keys; None: all of them.
    """

    path: Path
    features: Mapping[str, Feature]
    lengths: Sequence[int]
    read: Callable[[int, Sequence[str]], Columns]
    names: Mapping[str, str] = {}
    fps: float = 0.0
    metadata: Callable[[int], Mapping[str, Any]] = lambda e: {}
    defaults: Sequence[str] | None = None


def check_size(source: Source, e: int, keys: Sequence[str]) -> None:
    """Raises a UserError if episode e is empty or exceeds EPISODE_LIMIT; reads none of it."""
    # An episode without steps has nothing to learn from, and RLDS cannot hold it.
    length = int(source.lengths[e])
    if length < 1:
        raise UserError(f"{source.path}: episode {e}, empty: expected at least 1 step, got 0.")
    features = [source.features[key] for key in keys]
    # Python's integers: a hostile header may claim more than 2^63 bytes.
    size = length * sum(math.prod(shape) * dtype.itemsize for shape, dtype in features)
    if size > EPISODE_LIMIT:
        raise UserError(
            f"{source.path}: episode {e}: {length} steps of {', '.join(keys)} are "
            f"{size / 2**30:.1f} GiB by its header, at most {EPISODE_LIMIT / 2**30:.0f} GiB are "
            "read: if the header is right, split the episode or name fewer keys with keys=.",
            argument="keys",
        )


def as_columns(source: Source, e: int, names: Mapping[str, str]) -> Columns:
    """Reads and casts episode e: {name: float32 [T, ...] or uint8 [T, H, W, 3]}.

    names: {key: name in the data set} of the keys to convert.
    """
    # The size is checked before anything is read into memory.
    check_size(source, e, tuple(names))
    columns = source.read(e, tuple(names))
    where = f"{source.path}: episode {e}"
    return {name: _as_column(columns[key], f"{where}, {key}") for key, name in names.items()}


def _as_column(values: np.ndarray, where: str) -> np.ndarray:
    """Numbers [T] or [T, ...] as float32 [T, ...], images as uint8 [T, H, W, 3]."""
    # Four dimensions are images [T, H, W, 3]: `selection.conversion_problem` refuses all others.
    if values.ndim == 4:
        return _as_pixels(values, where)
    if values.ndim == 1:
        values = values[:, None]  # one scalar per step: [T] -> [T, 1]
    # numpy's warnings are off: numbers that don't fit are refused below, with their step.
    with np.errstate(over="ignore", invalid="ignore"):
        floats = values.astype(np.float32, copy=False)

    # An integer beyond 2^24 may lie between two float32 numbers; rounding would change it silently.
    if values.dtype.kind in "iu":
        wrong = np.argwhere(~exact(values, floats))
        if len(wrong):
            value = values[tuple(wrong[0])]
            raise UserError(
                f"{where}: step {wrong[0][0]}: expected an integer that float32 has, got {value}."
            )
    # A float64 beyond 3.4e38 becomes infinite in float32.
    if values.dtype.kind == "f" and values.dtype.itemsize > 4:
        wrong = np.argwhere(np.isinf(floats) & np.isfinite(values))
        if len(wrong):
            value = values[tuple(wrong[0])]
            raise UserError(f"{where}: step {wrong[0][0]}: expected a float32, got {value:g}.")
    return floats


def _as_pixels(values: np.ndarray, where: str) -> np.ndarray:
    """Images [T, H, W, 3] as uint8; refuses fractions and numbers beyond 0 to 255."""
    pixels = values if values.dtype == np.uint8 else images.as_pixels(values)
    if pixels is None:
        # All steps were checked at once. The first wrong one is looked up only for the message.
        t = next(t for t, frame in enumerate(values) if images.as_pixels(frame) is None)
        raise UserError(
            f"{where}: step {t}: expected whole numbers from 0 to 255, got {values[t].min():g} to "
            f"{values[t].max():g}."
        )
    return pixels


def natural_order(name: str) -> list[tuple[int, str]]:
    """A sort key for names with numbers: demo_2 comes before demo_10."""
    # "demo_10" -> ["demo_", "10", ""]. Python cannot compare a number with a string, so a number
    # becomes (number, "") and a string (-1, string), which sorts before every number.
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def files_digest(path: Path) -> str:
    """A hash of the names, sizes and modification times of a source's files, in 16 hex digits."""
    # Contents are not hashed: reading them would take as long as the conversion. A file that was
    # changed has another modification time.
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    for file in files:
        if file.is_file():
            stat = os.stat(file)
            text = f"{file.relative_to(path)} {stat.st_size} {stat.st_mtime_ns};"
            digest.update(text.encode(errors="surrogateescape"))  # names need not be UTF-8
    return digest.hexdigest()[:16]


@contextlib.contextmanager
def as_user_error(message: str) -> Iterator[None]:
    """Turns any exception that a library raises in the block into a one-line UserError.

    message: what was read and what is wrong with it; the library's text follows in parentheses.
    """
    try:
        yield
    except UserError:
        raise  # already one line, and more precise
    except Exception as error:  # a parser of hostile bytes may raise anything
        # The library's text may have several lines, and quote much of the file.
        text = " ".join(str(error).split())[:160]
        raise UserError(f"{message} ({type(error).__name__}: {text}). Copy it again.") from error
