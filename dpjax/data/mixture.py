"""Several data sets in one stream of windows, each with its share of every batch.

The stream is cut into rounds of 1,024 places. In every round each set has the same number
of places, its share to the nearest of 1,024, in an order that is drawn anew; the k-th
place of a set in the whole stream takes the k-th of the set's own windows, one permutation
an epoch. So a batch is a function of (seed, i) here too, no window of a set comes twice
before all have come once, and a small set goes round more often than a large one.

Mixtures: config.data.dir="a,b" trains on both, config.data.weights="2,1" says how much.
"""

import functools
from typing import NamedTuple

import numpy as np

from dpjax.core.errors import UserError
from dpjax.data import episodes as episodes_lib
from dpjax.data import frames
from dpjax.data.episodes import Episodes

ROUND = 1024  # places: shares are met to a thousandth, and within every few batches


class Mixture(NamedTuple):
    """Windows that lie one set after the other.

    counts: of windows, a set. places: in a round, a set; ROUND in all.
    """

    counts: tuple[int, ...]
    places: tuple[int, ...]


def of_weights(counts: tuple[int, ...], weights: tuple[float, ...]) -> Mixture:
    """Mixture whose shares are weights / Σ weights, each of them at least 1 in ROUND."""
    exact = np.asarray(weights, np.float64) / np.sum(weights) * ROUND
    places = np.floor(exact).astype(int)
    rest = np.argsort(places - exact, kind="stable")[: ROUND - places.sum()]
    places[rest] += 1  # the largest remainders
    if places.min() < 1:
        raise UserError(
            f"config.data.weights: set {int(places.argmin())} has a share below 1 in {ROUND} "
            f"(weights {', '.join(f'{w:g}' for w in weights)}): raise it, or leave the set out."
        )
    return Mixture(tuple(map(int, counts)), tuple(map(int, places)))


@functools.lru_cache(maxsize=16)
def permutation(num_windows: int, *seed: int) -> np.ndarray:
    """Cached, since an epoch has many batches and the permutation costs O(W)."""
    order = np.random.default_rng(seed).permutation(num_windows).astype(np.int32)
    order.flags.writeable = False
    return order


def window_ids(mixed: Mixture, seed: int, first: int, size: int) -> np.ndarray:
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


Shares = dict[str, tuple[int, float | None]]


def join(parts: dict, sets: dict, limit: int, folder: str) -> tuple[Episodes, Episodes, Shares]:
    """The (train, val) of all sets end to end, and each set's part in train.

    limit, folder: of the images (`frames.Store`).
    """
    if len(parts) > 1:
        _check_columns(parts)
        parts = _over_one_store(parts, limit, folder or None)
    train, val = zip(*parts.values())
    ends = np.cumsum([part.ends[-1] for part in train])
    shares = {name: (int(end), sets[name]) for name, end in zip(parts, ends)}
    return _chain(train), _chain(val), shares


def _chain(parts):
    """Episodes end to end, under all their sources' names."""
    whole = parts[0]
    for part in parts[1:]:
        whole = episodes_lib.join(whole, part)
    return whole._replace(source=",".join(part.source for part in parts))


def _check_columns(parts):
    """Refuses sets whose columns differ."""
    first, *others = parts
    describe = lambda name: {key: x.shape[1:] for key, x in parts[name][0].columns.items()}
    for name in others:
        for key, shape in describe(first).items():
            if describe(name)[key] != shape:
                raise UserError(
                    f"{name}: {key}: expected {list(shape)} a step as in {first}, got "
                    f"{list(describe(name)[key])}: sets of one mixture have the same columns."
                )


def _over_one_store(parts, limit, folder):
    """The parts with the images of each camera in one array of pixels."""
    flat = [part for pair in parts.values() for part in pair]
    cameras = frames.split(flat[0].columns)[1]
    for key in cameras:
        merged = frames.merge([part.columns[key] for part in flat], limit // len(cameras), folder)
        flat = [
            part._replace(columns={**part.columns, key: column})
            for part, column in zip(flat, merged)
        ]
    return {name: (flat[2 * i], flat[2 * i + 1]) for i, name in enumerate(parts)}


def of_windows(rows: np.ndarray, shares: Shares) -> Mixture | None:
    """How the windows rows [W, Tp] are drawn; None: each as often as any other."""
    ends, given = zip(*shares.values())
    if None in given:
        return None
    which = np.searchsorted(ends, rows[:, 0], side="right")  # the set of each window
    return of_weights(tuple(np.bincount(which, minlength=len(ends))), given)
