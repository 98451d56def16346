"""Mixing several data sets in one stream of windows, each with a fixed share.

The stream consists of rounds of 1,024 places. A data set has the same number of places in every
round: its share, rounded to 1/1024. Their order is drawn anew for each round. The k-th place of a
data set, counted over all rounds, holds the k-th window of that set's own stream, which is one
permutation per epoch. So

- a batch is a function of (seed, i), as with a single data set;
- within a data set, no window is repeated before all others have been used;
- a small data set is repeated more often than a large one of the same share.
"""

from collections.abc import Mapping, Sequence
import functools
from typing import NamedTuple

import numpy as np

from dpjax.core.errors import UserError
from dpjax.data import episodes as episodes_lib
from dpjax.data import frames
from dpjax.data.episodes import Episodes

# Places per round: fine enough for shares to a thousandth, and short enough that every few batches
# have the right shares.
ROUND = 1024

# {data set: (number of steps up to its end in the joined episodes, weight)}. The weight is None
# if data sets are mixed in proportion to their sizes.
Shares = dict[str, tuple[int, float | None]]


class Mixture(NamedTuple):
    """The sizes of several data sets and their shares of the stream.

    Windows are numbered through all sets: first those of set 0, then those of set 1, and so on.

    counts: the number of windows in each set.
    places: the number of places of each set in a round; their sum is ROUND.
    """

    counts: tuple[int, ...]
    places: tuple[int, ...]


def of_weights(counts: Sequence[int], weights: Sequence[float]) -> Mixture:
    """The mixture whose shares are weights / Σ weights.

    Raises a UserError if a share is below one place in ROUND.
    """
    # The exact shares in units of places, rounded down to whole places.
    exact = np.asarray(weights, np.float64) / np.sum(weights) * ROUND
    places = np.floor(exact).astype(int)
    # The places that are left over go to the sets with the largest remainders.
    rest = np.argsort(places - exact, kind="stable")[: ROUND - places.sum()]
    places[rest] += 1
    # A set without a place would never be trained on.
    if places.min() < 1:
        text = ",".join(f"{weight:g}" for weight in weights)
        raise UserError(
            f"weights={text} give set {int(places.argmin())} a share below 1 in {ROUND}: raise "
            "its weight, or leave the set out.",
            argument="weights",
        )
    return Mixture(tuple(map(int, counts)), tuple(map(int, places)))


def of_windows(indices: np.ndarray, shares: Shares) -> Mixture | None:
    """The mixture for windows [W, Tp] of joined episodes; None if sets are mixed by size."""
    # Without weights all windows are used equally often, like those of a single set.
    ends, weights = zip(*shares.values())
    if None in weights:
        return None
    # The first step of a window tells which set the window belongs to.
    which = np.searchsorted(ends, indices[:, 0], side="right")  # [W]
    # Windows are ordered by set, so the counts alone define which ids a set has.
    return of_weights(tuple(np.bincount(which, minlength=len(ends))), weights)


@functools.lru_cache(maxsize=16)
def permutation(num_windows: int, *seed: int) -> np.ndarray:
    """A permutation [W] int32 of the window ids; read-only.

    It is cached, since it takes O(W) time and all batches of an epoch use it.
    """
    # A generator takes a tuple of integers as its seed. Read-only, because the cache is shared.
    order = np.random.default_rng(seed).permutation(num_windows).astype(np.int32)
    order.flags.writeable = False
    return order


def window_ids(mixture: Mixture, seed: int, first: int, size: int) -> np.ndarray:
    """Window ids [size] int32 at the places of the stream from `first` on."""
    ids = np.empty(size, np.int32)
    # Go through all rounds that the stretch touches; it may begin and end inside a round.
    for number in range(first // ROUND, (first + size - 1) // ROUND + 1):
        # The part of this round that lies in the stretch: places low, …, high - 1.
        start = number * ROUND
        low = max(first, start)
        high = min(first + size, start + ROUND)
        ids[low - first : high - first] = _round(mixture, seed, number)[low - start : high - start]
    return ids


@functools.lru_cache(maxsize=4)
def _round(mixture: Mixture, seed: int, number: int) -> np.ndarray:
    """Window ids [ROUND] of one round of the stream."""
    # The set of each place: every set has its number of places, in random order.
    sets = np.repeat(np.arange(len(mixture.places)), mixture.places)
    order = sets[np.random.default_rng((seed, number, len(mixture.counts))).permutation(ROUND)]
    # Each set fills its places with the next windows of its own stream. `starts` is the id of the
    # first window of each set.
    ids = np.empty(ROUND, np.int32)
    starts = np.cumsum((0, *mixture.counts))
    for i, (count, places) in enumerate(zip(mixture.counts, mixture.places)):
        k = number * places + np.arange(places)  # positions in the set's own stream
        # One round may cover several epochs of a small set.
        epochs = {int(e): permutation(count, seed, int(e), i) for e in np.unique(k // count)}
        ids[order == i] = [starts[i] + epochs[e][j] for e, j in zip(k // count, k % count)]
    return ids


Parts = Mapping[str, tuple[Episodes, Episodes]]  # {data set: (train, val)}


def join(
    parts: Parts, weights: Mapping[str, float | None], limit: int, folder: str
) -> tuple[Episodes, Episodes, Shares]:
    """Joins data sets: all training episodes, all validation episodes, and the shares.

    Args:
        parts: {data set: (train, val)}.
        weights: {data set: weight, or None}.
        limit, folder: memory limit and folder of the images, see `frames.Store`.
    """
    # Joining needs the same columns in all sets, and one array of pixels for all images.
    if len(parts) > 1:
        _check_columns(parts)
        parts = _over_one_store(parts, limit, folder or None)
    train, val = zip(*parts.values())
    # The end of each set in the joined training steps, by which windows are assigned to sets.
    ends = np.cumsum([part.ends[-1] for part in train])
    shares = {name: (int(end), weights[name]) for name, end in zip(parts, ends)}
    return _chain(train), _chain(val), shares


def _chain(parts: Sequence[Episodes]) -> Episodes:
    """Episodes end to end, with the names of all their sources."""
    chained = functools.reduce(episodes_lib.join, parts)
    return chained._replace(source=",".join(part.source for part in parts))


def _check_columns(parts: Parts) -> None:
    """Raises a UserError if the columns of two sets differ."""
    # Every set is compared with the first one.
    first, *others = parts
    describe = lambda name: {key: x.shape[1:] for key, x in parts[name][0].columns.items()}
    for name in others:
        for key, shape in describe(first).items():
            if describe(name)[key] != shape:
                raise UserError(
                    f"{name}: {key}: expected {list(shape)} per step as in {first}, got "
                    f"{list(describe(name)[key])}: sets of one mixture have the same columns."
                )


def _over_one_store(parts: Parts, limit: int, folder: str | None) -> Parts:
    """The same parts, with the images of each camera in one array of pixels."""
    flat = [part for pair in parts.values() for part in pair]  # train, val, train, val, …
    # One camera after another; they share the memory limit equally.
    cameras = frames.split(flat[0].columns)[1]
    for key in cameras:
        merged = frames.merge([part.columns[key] for part in flat], limit // len(cameras), folder)
        flat = [
            part._replace(columns={**part.columns, key: column})
            for part, column in zip(flat, merged)
        ]
    # Back to pairs (train, val).
    return {name: (flat[2 * i], flat[2 * i + 1]) for i, name in enumerate(parts)}
