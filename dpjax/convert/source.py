"""What every format hands over: demonstrations that are read an episode at a time."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import hashlib
import math
import os
from pathlib import Path
import re
from typing import Any, NamedTuple

import numpy as np

from dpjax.core.errors import UserError, choices
from dpjax.data import images
from dpjax.data.rlds.columns import exact

ACTION = "action"
EPISODE_LIMIT = 2**32  # bytes of an episode's columns: an episode is in memory at a time
_name = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_\-]*")

Columns = dict[str, np.ndarray]


class Kind(NamedTuple):
    """What a key holds: shape of one step, and type, as the source has them."""

    shape: tuple[int, ...]
    dtype: np.dtype


class Source(NamedTuple):
    """Demonstrations of another format.

    path: for messages. kinds: {key: Kind} of all its keys.
    lengths: [E] steps of each episode.
    read: (e, keys) -> {key: [T, ...]} of that episode, as the source has them.
    names: {key: name in the data set} where it isn't the key itself.
    fps: steps a second; 0 where the source doesn't say.
    about: e -> {name: scalar}, metadata of that episode.
    defaults: the keys that are converted where none are asked for; None: all.
    said: lines for the person.
    """

    path: Path
    kinds: Mapping[str, Kind]
    lengths: Sequence[int]
    read: Callable[[int, Sequence[str]], Columns]
    names: Mapping[str, str] = {}
    fps: float = 0.0
    about: Callable[[int], Mapping[str, Any]] = lambda e: {}
    defaults: Sequence[str] | None = None
    said: Sequence[str] = ()


class Choice(NamedTuple):
    """names: {key: name in the data set} of what is converted. left_out: {key: why}."""

    names: dict[str, str]
    left_out: dict[str, str]


def choose(source: Source, keys: Sequence[str] | None, mapping: Mapping[str, str]) -> Choice:
    """What is converted, under which names; refuses what is asked for and can't be.

    keys: these and the action only, by their key or their name. mapping: {key or name: new}.
    """
    names = {key: source.names.get(key, key) for key in source.kinds}
    find = {**{name: key for key, name in names.items()}, **{key: key for key in names}}
    for old, new in mapping.items():
        names[_known(find, old, source)] = new
    action = [key for key, name in names.items() if name == ACTION]
    if not action:
        raise UserError(
            f"{source.path}: no key {ACTION!r} among its data ({', '.join(sorted(names))}). "
            f"If it has another name: --mapping NAME={ACTION}."
        )
    asked = {*(_known(find, key, source) for key in keys or ()), *action}
    wanted = asked if keys is not None else {*names} & {*(source.defaults or names), *action}
    left_out = {}
    for key in names:
        why = why_not(source.kinds[key])
        if key not in wanted:
            if keys is None:
                left_out[key] = "not an observation; --keys asks for it"
        elif why and key in asked:
            raise UserError(f"{source.path}: {key} can't be converted: {why}.")
        elif why:
            left_out[key] = why
    chosen = {key: name for key, name in names.items() if key in wanted and key not in left_out}
    _check_names(chosen, source)
    return Choice(chosen, left_out)


def _known(find: Mapping[str, str], key: str, source: Source) -> str:
    if key not in find:
        raise UserError(f"{source.path}: no key {key!r}; {choices(key, find)}.")
    return find[key]


def _check_names(chosen: Mapping[str, str], source: Source) -> None:
    for key, name in chosen.items():
        if not _name.fullmatch(name):
            raise UserError(
                f"{source.path}: {key}: {name!r} is no name for RLDS (letters, digits, _ and -): "
                f"--mapping {key}=NEW gives another."
            )
        if twin := [other for other, same in chosen.items() if same == name and other != key]:
            raise UserError(
                f"{source.path}: {key} and {twin[0]} would both be {name!r}: rename one: --mapping."
            )


def why_not(kind: Kind) -> str:
    """Why a key can't be converted, or ""."""
    shape, dtype = kind.shape, np.dtype(kind.dtype)
    if 0 in shape:
        return f"a step of it is empty: shape {list(shape)}"
    if len(shape) == 3:
        if shape[-1] == 3 and (dtype == np.uint8 or dtype.kind == "f"):
            return ""
        hint = ": channels come last, transpose it" if shape[0] == 3 else ""
        got = [None, *shape]
        return f"images are uint8 [T, H, W, 3], and it has shape {got} of {dtype}{hint}"
    if len(shape) > 3:
        return f"a step has at most 3 dimensions, and it has shape {list(shape)}"
    if dtype.kind not in "fiub":
        return f"only numbers are converted, and it is {dtype}"
    return ""


def say(source: Source, choice: Choice) -> list[str]:
    """A line on each key that is not written as it is."""
    lines = []
    for key, name in choice.names.items():
        shape, dtype = source.kinds[key]
        if dtype == np.float32 and shape or (len(shape) == 3 and dtype == np.uint8):
            continue
        to = "uint8, whole numbers from 0 to 255" if len(shape) == 3 else "float32"
        exact = ", where exact" if dtype.kind in "iub" else ""
        wider = "" if shape else " of shape [1]"
        lines.append(f"{name}: {dtype} is cast to {to}{wider}{exact}")
    return lines


def check_size(source: Source, e: int, keys: Sequence[str]) -> None:
    """Refuses an episode that would not fit in memory, before any of it is read."""
    length = int(source.lengths[e])
    if length < 1:
        raise UserError(f"{source.path}: episode {e}, empty: expected at least 1 step, got 0.")
    kinds = [source.kinds[key] for key in keys]
    size = length * sum(math.prod(kind.shape) * kind.dtype.itemsize for kind in kinds)
    if size > EPISODE_LIMIT:
        raise UserError(
            f"{source.path}: episode {e}: {length} steps of {', '.join(keys)} are "
            f"{size / 2**30:.1f} GiB by its header, at most {EPISODE_LIMIT / 2**30:.0f} GiB are "
            "read: the header is broken, or split the episode or choose keys (--keys)."
        )


def as_columns(source: Source, e: int, names: Mapping[str, str]) -> Columns:
    """Episode e as it is written: {name: float32 [T, ...] or uint8 [T, H, W, 3]}."""
    check_size(source, e, tuple(names))
    found = source.read(e, tuple(names))
    where = f"{source.path}: episode {e}"
    return {name: _as_column(found[key], f"{where}, {key}") for key, name in names.items()}


def _as_column(x: np.ndarray, where: str) -> np.ndarray:
    if x.ndim == 4:
        return _as_pixels(x, where)
    x = x[:, None] if x.ndim == 1 else x
    with np.errstate(over="ignore", invalid="ignore"):
        y = x.astype(np.float32, copy=False)
    if x.dtype.kind in "iu":
        bad = np.argwhere(~exact(x, y))
        if len(bad):
            value = x[tuple(bad[0])]
            raise UserError(
                f"{where}: step {bad[0][0]}: expected an integer that float32 has, got {value}."
            )
    if x.dtype.kind == "f" and x.dtype.itemsize > 4:
        bad = np.argwhere(np.isinf(y) & np.isfinite(x))
        if len(bad):
            value = x[tuple(bad[0])]
            raise UserError(f"{where}: step {bad[0][0]}: expected a float32, got {value:g}.")
    return y


def _as_pixels(x: np.ndarray, where: str) -> np.ndarray:
    pixels = x if x.dtype == np.uint8 else images.as_pixels(x)
    if pixels is None:
        t = next(t for t, frame in enumerate(x) if images.as_pixels(frame) is None)
        raise UserError(
            f"{where}: step {t}: expected whole numbers from 0 to 255, got {x[t].min():g} to "
            f"{x[t].max():g}."
        )
    return pixels


def natural(name: str) -> list:
    """A key to sort by that puts demo_2 before demo_10."""
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def state(path: Path) -> str:
    """16 hex digits of the names, sizes and times of all the source's files."""
    found = hashlib.sha256()
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    for file in files:
        if file.is_file():
            stat = os.stat(file)
            text = f"{file.relative_to(path)} {stat.st_size} {stat.st_mtime_ns};"
            found.update(text.encode(errors="surrogateescape"))
    return found.hexdigest()[:16]


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Around calls of a library that reads a file: what it raises becomes one line on it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # they raise whatever their parsers raise
        text = " ".join(str(error).split())[:160]
        raise UserError(f"{what} ({type(error).__name__}: {text}). Copy it again.") from error
