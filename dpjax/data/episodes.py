"""Demonstrations in memory: flat columns, and where each episode ends.

Step t of episode e is element `starts[e] + t` of every column. A column is one array for all
episodes: a window is read by one indexing operation, and the whole array can be put on a device.
"""

from collections.abc import Mapping, Sequence
import hashlib
from typing import Any, NamedTuple

import numpy as np

from dpjax.data import frames


class Episodes(NamedTuple):
    """The steps of all episodes, end to end.

    columns: {name: [N, ...]}, arrays of numbers, or `frames.Frames` of images.
    ends: [E] int64, the step after the last one of each episode; ends[-1] is N.
    source: the path or name of the data set, for messages.
    """

    columns: dict[str, Any]
    ends: np.ndarray
    source: str

    @property
    def starts(self) -> np.ndarray:
        """[E], the first step of each episode."""
        # The slice at the end is for an empty data set, which would otherwise have one start.
        return np.concatenate([np.zeros(1, np.int64), self.ends[:-1]])[: len(self.ends)]

    @property
    def lengths(self) -> np.ndarray:
        """[E], the number of steps in each episode."""
        return np.diff(self.ends, prepend=0)


def stack(episodes: list[dict[str, np.ndarray]], source: str) -> Episodes:
    """Episodes from a list of one or more episodes {name: [T, ...]}."""
    # All episodes have the same keys; the caller has checked that.
    columns = {key: np.concatenate([e[key] for e in episodes]) for key in episodes[0]}
    # All columns of an episode have the same length, so any of them gives it.
    lengths = [len(next(iter(e.values()))) for e in episodes]
    return Episodes(columns, np.cumsum(lengths, dtype=np.int64), source)


def select(episodes: Episodes, ids: Sequence[int] | np.ndarray) -> Episodes:
    """The episodes with these ids, in that order."""
    # Each episode's start and length in the source, and its end in the selection.
    ids = np.asarray(ids, np.int64)
    starts = episodes.starts[ids]
    lengths = episodes.lengths[ids]
    ends = np.cumsum(lengths, dtype=np.int64)
    # An episode moves from its old start to its new one, `ends - lengths`. So step k of the
    # selection is step k + (old start - new start) of the source.
    indices = np.arange(lengths.sum()) + np.repeat(starts - (ends - lengths), lengths)
    # Numbers are copied; for images only the indices of the frames are.
    columns = {key: frames.take(column, indices) for key, column in episodes.columns.items()}
    return Episodes(columns, ends, episodes.source)


def join(first: Episodes, second: Episodes) -> Episodes:
    """The episodes of `first`, then those of `second`; both have the same columns.

    The result has the source of `first`.
    """
    columns = {
        key: frames.join(column, second.columns[key]) for key, column in first.columns.items()
    }
    # The ends of the second part are shifted by the number of steps in the first.
    ends = np.concatenate([first.ends, second.ends + first.lengths.sum(dtype=np.int64)])
    return Episodes(columns, ends, first.source)


def split(num_episodes: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the episodes for training and for validation, both ascending.

    The validation episodes are drawn as in the code of Chi et al. 2023. With fraction > 0 and two
    or more episodes, each part has at least one.
    """
    ids = np.arange(num_episodes)
    if fraction <= 0:
        return ids, ids[:0]
    # At least one episode for validation, and at least one left for training.
    num_val = min(max(round(num_episodes * fraction), 1), num_episodes - 1)
    # The generator and the call of the original, so that the same seed gives the same split.
    val = np.random.default_rng(seed).choice(num_episodes, size=num_val, replace=False)
    return np.setdiff1d(ids, val), np.sort(val)


def digest(columns: Mapping[str, np.ndarray]) -> str:
    """32 hex digits of one episode's content {key: [T, ...]}: names, types, shapes, values."""
    sha256 = hashlib.sha256()
    # Sorted: the order of the keys does not matter.
    for key, column in sorted(columns.items()):
        # The header is hashed too: the same bytes could be an array of another type or shape.
        sha256.update(f"{key} {column.dtype.str} {column.shape};".encode())
        sha256.update(np.ascontiguousarray(column).data)
    return sha256.hexdigest()[:32]


def fingerprint(episodes: Episodes) -> str:
    """16 hex digits of the content: names, types, shapes, values and ends, but not the source."""
    sha256 = hashlib.sha256()
    # The ends are hashed like a column; no real column has a name that begins with a space.
    for key, column in sorted({**episodes.columns, " ends": episodes.ends}.items()):
        sha256.update(f"{key} {column.dtype.str} {column.shape};".encode())
        # The pixels of images were hashed while they were read: their digest stands for them.
        if isinstance(column, frames.Frames):
            sha256.update(column.digest.encode())
            parts = [column.indices, column.mirrored]
        else:
            parts = [column]
        for part in parts:
            sha256.update(np.ascontiguousarray(part).data)
    return sha256.hexdigest()[:16]
