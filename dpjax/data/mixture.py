"""Several data sets in one stream of windows, each with its share of every batch.

The stream is cut into rounds of 1,024 places. In every round each set has the same number of
places: its share, rounded to the nearest of 1,024, in an order that is drawn anew per round. The
k-th place of a set in the whole stream holds the k-th window of that set's own stream, which is one
permutation per epoch. So a batch is a function of (seed, i) here too, no window of a set comes
twice before all have come once, and a small set is repeated more often than a large one.
"""

from collections.abc import Mapping, Sequence
import functools
from typing import NamedTuple

import numpy as np

from dpjax.core.errors import UserError
from dpjax.data import episodes as episodes_lib
from dpjax.data import frames
from dpjax.data.episodes import Episodes

ROUND = 1024  # places: shares are met to a thousandth, and within every few batches

# {name of a data set: (the end of its last step in the joined episodes, its weight)}. The weight
# is None if sets are mixed by their sizes.
Shares = dict[str, tuple[int, float | None]]


class Mixture(NamedTuple):
    """Windows of several sets, numbered one set after another, and how often each set comes.

    counts: the number of windows per set.
    places: the number of places per set in a round; their sum is ROUND.
    """

    counts: tuple[int, ...]
    places: tuple[int, ...]


def of_weights(counts: Sequence[int], weights: Sequence[float]) -> Mixture:
    """The mixture whose shares are weights / Σ weights.

    Raises a UserError if a share is below one place in ROUND.
    """
    # Places are whole numbers; how many of them a share is worth is not.
    exact = np.asarray(weights, np.float64) / np.sum(weights) * ROUND
    places = np.floor(exact).astype(int)
    # The places that rounding down left over go to the largest remainders.
    rest = np.argsort(places - exact, kind="stable")[: ROUND - places.sum()]
    places[rest] += 1
    if places.min() < 1:
        text = ",".join(f"{weight:g}" for weight in weights)
        raise UserError(
            f"weights={text} give set {int(places.argmin())} a share below 1 in {ROUND}: raise "
            "its weight, or leave the set out.",
            argument="weights",
        )
    return Mixture(tuple(map(int, counts)), tuple(map(int, places)))


def of_windows(indices: np.ndarray, shares: Shares) -> Mixture | None:
    """The mixture of windows [W, Tp] of joined episodes; None if sets are mixed by their sizes."""
    # Without weights the windows of all sets form one stream, as those of a single set.
    ends, weights = zip(*shares.values())
    if None in weights:
        return None
    which = np.searchsorted(ends, indices[:, 0], side="right")  # [W], the set of each window
    # Windows lie one set after another, so a count per set says which ids are whose.
    return of_weights(tuple(np.bincount(which, minlength=len(ends))), weights)


@functools.lru_cache(maxsize=16)
def permutation(num_windows: int, *seed: int) -> np.ndarray:
    """A permutation [W] int32 of the window ids; read-only.

    Cached, since it costs O(W) and an epoch has many batches.
    """
    order = np.random.default_rng(seed).permutation(num_windows).astype(np.int32)
    order.flags.writeable = False
    return order


def window_ids(mixture: Mixture, seed: int, first: int, size: int) -> np.ndarray:
    """Window ids [size] int32 at the places of the stream from `first` on."""
    ids = np.empty(size, np.int32)
    # The stretch may begin and end inside a round.
    for number in range(first // ROUND, (first + size - 1) // ROUND + 1):
        # The part of this round that lies inside the wanted stretch.
        start = number * ROUND
        low = max(first, start)
        high = min(first + size, start + ROUND)
        ids[low - first : high - first] = _round(mixture, seed, number)[low - start : high - start]
    return ids


@functools.lru_cache(maxsize=4)
def _round(mixture: Mixture, seed: int, number: int) -> np.ndarray:
    """Window ids [ROUND] of one round of the stream."""
    # Which set each place belongs to: the right number of places per set, shuffled.
    sets = np.repeat(np.arange(len(mixture.places)), mixture.places)
    order = sets[np.random.default_rng((seed, number, len(mixture.counts))).permutation(ROUND)]
    # Each set fills its places with the next windows of its own stream.
    ids = np.empty(ROUND, np.int32)
    starts = np.cumsum((0, *mixture.counts))
    for i, (count, places) in enumerate(zip(mixture.counts, mixture.places)):
        k = number * places + np.arange(places)  # positions in the set's own stream
        # A round of a small set may reach over several of its epochs.
        epochs = {int(e): permutation(count, seed, int(e), i) for e in np.unique(k // count)}
        ids[order == i] = [starts[i] + epochs[e][j] for e, j in zip(k // count, k % count)]
    return ids


Parts = Mapping[str, tuple[Episodes, Episodes]]  # {data set: (train, val)}


def join(
    parts: Parts, weights: Mapping[str, float | None], limit: int, folder: str
) -> tuple[Episodes, Episodes, Shares]:
    """The training and the validation episodes of all sets end to end, and the sets' shares.

    Args:
        parts: {data set: (train, val)}.
        weights: {data set: weight, or None}.
        limit, folder: of the images, see `frames.Store`.
    """
    # Several sets can only be joined if their columns agree and their images lie together.
    if len(parts) > 1:
        _check_columns(parts)
        parts = _over_one_store(parts, limit, folder or None)
    train, val = zip(*parts.values())
    # Where each set ends among the joined training steps, which tells whose a window is.
    ends = np.cumsum([part.ends[-1] for part in train])
    shares = {name: (int(end), weights[name]) for name, end in zip(parts, ends)}
    return _chain(train), _chain(val), shares


def _chain(parts: Sequence[Episodes]) -> Episodes:
    """Episodes end to end, with the names of all their sources."""
    chained = functools.reduce(episodes_lib.join, parts)
    return chained._replace(source=",".join(part.source for part in parts))


def _check_columns(parts: Parts) -> None:
    """Raises a UserError if the columns of two sets differ."""
    # All are compared with the first one.
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
    # The memory limit is for all cameras together.
    cameras = frames.split(flat[0].columns)[1]
    for key in cameras:
        merged = frames.merge([part.columns[key] for part in flat], limit // len(cameras), folder)
        flat = [
            part._replace(columns={**part.columns, key: column})
            for part, column in zip(flat, merged)
        ]
    return {name: (flat[2 * i], flat[2 * i + 1]) for i, name in enumerate(parts)}
