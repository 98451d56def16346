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
import math
import os
from pathlib import Path
import re
from typing import Any, NamedTuple

import numpy as np

from dpjax.core.errors import UserError
from dpjax.data import images
from dpjax.data.counters import COUNTERS as COUNTERS
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
    features: {key: Feature} of all keys with a shape and a type, including those that can't be
        converted.
    lengths: [E] steps of each episode. With `key_lengths` those of any key, and the action's
        count.
    read: (e, keys) -> {key: [T, ...]} of episode e, in the source's own types.
    names: {key: name in the data set}, for keys that are renamed.
    fps: steps per second; 0 if the source doesn't say.
    metadata: e -> {name: scalar}, which is stored with episode e.
    defaults: keys that are converted unless the user names keys; None: all but COUNTERS.
    problems: {key: reason} of keys that nobody can convert, such as text, or a key that only some
        episodes have. They are left out with their reason, unless they are asked for.
    damage: {key: reason} of keys that are broken. They are an error unless the user names other
        keys: a damaged file should not become a smaller data set.
    key_lengths: {key: [E]} of keys whose lengths may differ from those of the others.
    actions: keys whose next step is the action, in a source that records none.
    bad: {e: reason} of episodes that can't be read at all.
    damaged_in: {key: {e: reason}} of episodes in which a key is broken.
    differs_in: {key: {e: reason}} of episodes that lack a key, or have it in another shape than
        most. Unless the key is asked for, it is left out of all episodes.
    """

    path: Path
    features: Mapping[str, Feature]
    lengths: Sequence[int]
    read: Callable[[int, Sequence[str]], Columns]
    names: Mapping[str, str] = {}
    fps: float = 0.0
    metadata: Callable[[int], Mapping[str, Any]] = lambda e: {}
    defaults: Sequence[str] | None = None
    problems: Mapping[str, str] = {}
    damage: Mapping[str, str] = {}
    key_lengths: Mapping[str, Sequence[int]] = {}
    actions: Sequence[str] = ()
    bad: Mapping[int, str] = {}
    damaged_in: Mapping[str, Mapping[int, str]] = {}
    differs_in: Mapping[str, Mapping[int, str]] = {}


def key_fault(source: Source, key: str, e: int) -> str:
    """Why a key of episode e can't be read, by the headers, with its name; "" if it can."""
    for faults in (source.damaged_in, source.differs_in):
        if reason := faults.get(key, {}).get(e):
            return reason
    # `lengths` are those of the action, 0 without one. Others must have the same steps.
    steps = source.key_lengths.get(key, source.lengths)[e]
    if source.lengths[e] not in (0, steps):
        return f"{steps} steps of {key}, where the action has {source.lengths[e]}"
    return ""


def check_headers(source: Source, e: int, keys: Sequence[str]) -> None:
    """Raises a UserError if episode e, or one of these keys in it, is bad by the headers."""
    if reason := source.bad.get(e):
        raise UserError(f"{source.path}: episode {e}: {reason}.")
    for key in keys:
        if reason := key_fault(source, key, e):
            raise UserError(f"{source.path}: episode {e}: {reason}.")


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
    """Reads and casts episode e: {name: float32 [T, D] or uint8 [T, H, W, 3]}.

    names: {key: name in the data set} of the keys to convert.
    """
    # The size is checked before anything is read into memory.
    check_headers(source, e, tuple(names))
    check_size(source, e, tuple(names))
    columns = source.read(e, tuple(names))
    where = f"{source.path}: episode {e}"
    return {name: _as_column(columns[key], f"{where}, {key}") for key, name in names.items()}


def _as_column(values: np.ndarray, where: str) -> np.ndarray:
    """Numbers [T], [T, n] or [T, m, n] as float32 [T, D], images as uint8 [T, H, W, 3]."""
    # Four dimensions are images [T, H, W, 3]: `selection.conversion_problem` refuses all others.
    if values.ndim == 4:
        return _as_pixels(values, where)
    # One number per step becomes [T, 1], and a matrix per step is flattened: [T, 9, 2] -> [T, 18].
    values = values.reshape(len(values), -1)
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


def plain_files(path: Path) -> Iterator[Path]:
    """All files below a folder, in order.

    Raises a UserError for a folder that may not be read, and for a link that leads out of `path`,
    to a folder, or nowhere: its data would be missing without a word.
    """
    root = path.resolve()

    def refuse(error: OSError) -> None:
        raise UserError(f"{error.filename}: {error.strerror}.") from error

    for folder, folders, names in os.walk(path, onerror=refuse):
        folders.sort()
        for name in sorted([*folders, *names]):
            entry = Path(folder) / name
            if entry.is_symlink():
                _check_link(entry, root)
            if name in names:
                yield entry


def _check_link(link: Path, root: Path) -> None:
    """Raises a UserError unless the link leads to a file below the root."""
    target = link.resolve()
    if not target.exists():
        raise UserError(
            f"{link}: a link to nothing ({os.readlink(link)}): fetch what it stands for "
            "(git annex get), or remove it."
        )
    if target.is_dir() or root not in target.parents:
        where = "a folder" if target.is_dir() else "a file outside of the source"
        raise UserError(f"{link}: a link to {where}, which is not followed: copy it in its place.")


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
