"""Demonstrations in memory: flat columns, and where each episode ends.

Step t of episode e is element `starts[e] + t` of every column. One array per column instead of one
per episode, so that reading a window is one indexing operation and a data set fits on a device.
"""

from collections.abc import Mapping, Sequence
import hashlib
from typing import Any, NamedTuple

import numpy as np

from dpjax.data import frames


class Episodes(NamedTuple):
    """All steps of all episodes, in order.

    columns: {name: [N, ...]}, arrays, or `frames.Frames` of images.
    ends: [E] int64, the step after the last one of each episode; ends[-1] is N.
    source: where they came from, for messages.
    """

    columns: dict[str, Any]
    ends: np.ndarray
    source: str

    @property
    def starts(self) -> np.ndarray:
        """[E], the first step of each episode."""
        # The slice leaves nothing of the leading 0 where there are no episodes.
        return np.concatenate([np.zeros(1, np.int64), self.ends[:-1]])[: len(self.ends)]

    @property
    def lengths(self) -> np.ndarray:
        """[E], the number of steps in each episode."""
        return np.diff(self.ends, prepend=0)


def stack(episodes: list[dict[str, np.ndarray]], source: str) -> Episodes:
    """Episodes from a list of at least one {name: [T, ...]}."""
    # All episodes have the keys of the first; whoever read them has checked it.
    columns = {key: np.concatenate([e[key] for e in episodes]) for key in episodes[0]}
    lengths = [len(next(iter(e.values()))) for e in episodes]
    return Episodes(columns, np.cumsum(lengths, dtype=np.int64), source)


def select(episodes: Episodes, ids: Sequence[int] | np.ndarray) -> Episodes:
    """The episodes with these ids, in that order."""
    # Where each episode was, and where it ends in the selection.
    ids = np.asarray(ids, np.int64)
    starts = episodes.starts[ids]
    lengths = episodes.lengths[ids]
    ends = np.cumsum(lengths, dtype=np.int64)
    # Step k of the selection belongs to an episode that moved from its old start to `ends -
    # lengths`, so its old place is k plus the difference of the two.
    indices = np.arange(lengths.sum()) + np.repeat(starts - (ends - lengths), lengths)
    columns = {key: frames.take(column, indices) for key, column in episodes.columns.items()}
    return Episodes(columns, ends, episodes.source)


def join(first: Episodes, second: Episodes) -> Episodes:
    """The episodes of both, which have the same columns; the first one's source."""
    columns = {
        key: frames.join(column, second.columns[key]) for key, column in first.columns.items()
    }
    # The second part starts where the first one ends.
    ends = np.concatenate([first.ends, second.ends + first.lengths.sum(dtype=np.int64)])
    return Episodes(columns, ends, first.source)


def split(num_episodes: int, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids of the episodes for training and for validation, as Chi et al.'s code draws them.

    Both are ascending. With fraction > 0 and two episodes or more, each part has at least one.
    """
    ids = np.arange(num_episodes)
    if fraction <= 0:
        return ids, ids[:0]
    num_val = min(max(round(num_episodes * fraction), 1), num_episodes - 1)
    # Drawn as in the original, so that its seed gives its split.
    val = np.random.default_rng(seed).choice(num_episodes, size=num_val, replace=False)
    return np.setdiff1d(ids, val), np.sort(val)


def digest(columns: Mapping[str, np.ndarray]) -> str:
    """32 hex digits of one episode's content {key: [T, ...]}: names, types, shapes, numbers."""
    sha256 = hashlib.sha256()
    for key, column in sorted(columns.items()):
        # Names, types and shapes are part of the content: bytes alone could be cut otherwise.
        sha256.update(f"{key} {column.dtype.str} {column.shape};".encode())
        sha256.update(np.ascontiguousarray(column).data)
    return sha256.hexdigest()[:32]


def fingerprint(episodes: Episodes) -> str:
    """16 hex digits of the content: names, types, shapes, numbers and ends, but not the source."""
    sha256 = hashlib.sha256()
    # The ends are hashed like a column; the space keeps their name apart from every other.
    for key, column in sorted({**episodes.columns, " ends": episodes.ends}.items()):
        sha256.update(f"{key} {column.dtype.str} {column.shape};".encode())
        if isinstance(column, frames.Frames):  # the pixels were hashed while they were read
            sha256.update(column.digest.encode())
            parts = [column.indices, column.mirrored]
        else:
            parts = [column]
        for part in parts:
            sha256.update(np.ascontiguousarray(part).data)
    return sha256.hexdigest()[:16]
