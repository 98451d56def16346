"""Demonstrations in memory: flat columns, and where each episode ends.

Step t of episode e is row `starts[e] + t` of every column. One array a column, not
one an episode, so that a window is a fancy index and a data set fits a device.
"""

from collections.abc import Mapping
import hashlib
from typing import NamedTuple

import numpy as np

from dpjax.data import frames


class Episodes(NamedTuple):
    """All the steps of all the episodes, in order.

    columns: {name: [N, ...]}, arrays, or `frames.Frames` of images.
    ends: [E] int64, the row after the last one of each episode; ends[-1] is N.
    source: where they came from, for messages.
    """

    columns: dict[str, np.ndarray]
    ends: np.ndarray
    source: str

    @property
    def starts(self) -> np.ndarray:
        """[E] the first row of each episode."""
        return np.concatenate([np.zeros(1, np.int64), self.ends[:-1]])[: len(self.ends)]

    @property
    def lengths(self) -> np.ndarray:
        """[E] the number of steps of each episode."""
        return np.diff(self.ends, prepend=0)


def stack(episodes: list[dict[str, np.ndarray]], source: str) -> Episodes:
    """Episodes from one dict of [T, ...] columns an episode; at least one."""
    columns = {key: np.concatenate([e[key] for e in episodes]) for key in episodes[0]}
    lengths = [len(next(iter(e.values()))) for e in episodes]
    return Episodes(columns, np.cumsum(lengths, dtype=np.int64), source)


def select(episodes: Episodes, ids: np.ndarray) -> Episodes:
    """The episodes `ids`, in that order."""
    ids = np.asarray(ids, np.int64)
    starts, lengths = episodes.starts[ids], episodes.lengths[ids]
    ends = np.cumsum(lengths, dtype=np.int64)
    # Row r of the selection lies r - (its episode's new start) after the old start.
    rows = np.arange(lengths.sum()) + np.repeat(starts - (ends - lengths), lengths)
    columns = {key: frames.take(column, rows) for key, column in episodes.columns.items()}
    return Episodes(columns, ends, episodes.source)


def join(first: Episodes, second: Episodes) -> Episodes:
    """The episodes of both, which have the same columns."""
    columns = {
        key: frames.join(column, second.columns[key]) for key, column in first.columns.items()
    }
    ends = np.concatenate([first.ends, second.ends + first.lengths.sum(dtype=np.int64)])
    return Episodes(columns, ends, first.source)


def split(num_episodes: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids for training and for validation, both ascending, as Chi et al.'s code draws them.

    At least one episode is left on each side where fraction > 0 and there are two.
    """
    ids = np.arange(num_episodes)
    if fraction <= 0:
        return ids, ids[:0]
    num_val = min(max(round(num_episodes * fraction), 1), num_episodes - 1)
    val = np.random.default_rng(seed).choice(num_episodes, size=num_val, replace=False)
    return np.setdiff1d(ids, val), np.sort(val)


def digest(columns: Mapping[str, np.ndarray]) -> str:
    """32 hex digits of one episode's content {key: [T, ...]}: names, types, shapes, numbers."""
    found = hashlib.sha256()
    for key, column in sorted(columns.items()):
        found.update(f"{key} {column.dtype.str} {column.shape};".encode())
        found.update(np.ascontiguousarray(column).data)
    return found.hexdigest()[:32]


def fingerprint(episodes: Episodes) -> str:
    """16 hex digits of the content: names, types, shapes, numbers and ends; not the source."""
    digest = hashlib.sha256()
    for key, column in sorted({**episodes.columns, " ends": episodes.ends}.items()):
        digest.update(f"{key} {column.dtype.str} {column.shape};".encode())
        if isinstance(column, frames.Frames):  # the pixels were digested as they were read
            digest.update(column.digest.encode())
            parts = [column.rows, column.mirrored]
        else:
            parts = [column]
        for part in parts:
            digest.update(np.ascontiguousarray(part).data)
    return digest.hexdigest()[:16]
