"""Several data sets in one stream of windows, each with its share of every batch.

The stream is cut into rounds of 1,024 places. In every round each set has the same number
of places, its share to the nearest of 1,024, in an order that is drawn anew; the k-th
place of a set in the whole stream takes the k-th of the set's own windows, one permutation
an epoch. So a batch is a function of (seed, i) here too, no window of a set comes twice
before all have come once, and a small set goes round more often than a large one.
"""

import functools
from typing import NamedTuple

import numpy as np

from dpjax.errors import UserError

ROUND = 1024  # places: shares are met to a thousandth, and within every few batches


class Pools(NamedTuple):
    """Windows that lie one set after the other.

    counts: of windows, a set. places: in a round, a set; ROUND in all.
    """

    counts: tuple[int, ...]
    places: tuple[int, ...]


def pools(counts: tuple[int, ...], weights: tuple[float, ...]) -> Pools:
    """Pools whose shares are weights / Σ weights, each of them at least 1 in ROUND."""
    exact = np.asarray(weights, np.float64) / np.sum(weights) * ROUND
    places = np.floor(exact).astype(int)
    rest = np.argsort(places - exact, kind="stable")[: ROUND - places.sum()]
    places[rest] += 1  # the largest remainders
    if places.min() < 1:
        raise UserError(
            f"config.data.weights: set {int(places.argmin())} has a share below 1 in {ROUND} "
            f"(weights {', '.join(f'{w:g}' for w in weights)}): raise it, or leave the set out."
        )
    return Pools(tuple(map(int, counts)), tuple(map(int, places)))


@functools.lru_cache(maxsize=16)
def permutation(num_windows: int, *seed: int) -> np.ndarray:
    """Cached, since an epoch has many batches and the permutation costs O(W)."""
    order = np.random.default_rng(seed).permutation(num_windows).astype(np.int32)
    order.flags.writeable = False
    return order


def rows(mixed: Pools, seed: int, first: int, size: int) -> np.ndarray:
    """The windows [size] int32 at the places from `first` on."""
    ids = np.empty(size, np.int32)
    for number in range(first // ROUND, (first + size - 1) // ROUND + 1):
        whole = _round(mixed, seed, number)
        start = number * ROUND
        low, high = max(first, start), min(first + size, start + ROUND)
        ids[low - first : high - first] = whole[low - start : high - start]
    return ids


@functools.lru_cache(maxsize=4)
def _round(mixed, seed, number):
    """The windows [ROUND] of a whole round."""
    sets = np.repeat(np.arange(len(mixed.places)), mixed.places)
    order = sets[np.random.default_rng((seed, number, len(mixed.counts))).permutation(ROUND)]
    ids = np.empty(ROUND, np.int32)
    starts = np.cumsum((0, *mixed.counts))
    for i, (count, places) in enumerate(zip(mixed.counts, mixed.places)):
        k = number * places + np.arange(places)  # of the set's own stream
        epochs = {int(e): permutation(count, seed, int(e), i) for e in np.unique(k // count)}
        ids[order == i] = [starts[i] + epochs[e][j] for e, j in zip(k // count, k % count)]
    return ids
