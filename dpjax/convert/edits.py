"""What a conversion does to an episode: join columns, cut waiting off, keep every n-th step.

Pure functions of columns {name: [T, ...]}, in the order in which `edit` applies them.
"""

from collections.abc import Iterable, Mapping, Sequence
import math
from typing import NamedTuple

import numpy as np

from dpjax.convert.source import ACTION, Columns
from dpjax.core.errors import UserError, listed_ranges

# A dim rests while it stays within this share of its range in the data set, as in the check.
REST = 0.005


class Edits(NamedTuple):
    """What is done to every episode.

    joins: {name: columns that are joined to it}.
    following: the joined action is what its parts are in the next step.
    keep: the columns that are stored; the others were read to be joined.
    drop_first, drop_last: steps that are left out at both ends, such as fillers.
    shift: each observation gets the action of so many steps later, or earlier if it is negative.
    rest: {column: [D] how far its dims move at rest}, to cut the steps off in which nothing moves
        yet, or any more (`rests`); None keeps them.
    every: n; a block of n steps becomes one.
    deltas: dims of the action that are changes, and are summed over a block; the others are
        targets, of which the last one of the block counts. None if nobody has said.
    """

    joins: Mapping[str, Sequence[str]] = {}
    following: bool = False
    keep: frozenset[str] | None = None
    drop_first: int = 0
    drop_last: int = 0
    shift: int = 0
    rest: Mapping[str, np.ndarray] | None = None
    every: int = 1
    deltas: tuple[int, ...] | None = None


class Counts(NamedTuple):
    """How many steps an edit has left out, of how many."""

    steps: int = 0
    idle: int = 0


def edit(columns: Columns, edits: Edits) -> tuple[Columns, Counts]:
    """The columns of an episode after all edits, and the number of its idle steps."""
    columns = choose(columns, edits)
    steps = len(columns[ACTION])
    idle = 0
    if edits.rest is not None:
        kept = moving(columns, edits.rest)
        idle = steps - (kept.stop - kept.start)
        columns = {name: x[kept] for name, x in columns.items()}
    if edits.every > 1:
        columns = thin(columns, edits.every, edits.deltas or ())
    return columns, Counts(steps, idle)


def choose(columns: Columns, edits: Edits) -> Columns:
    """The columns that are stored, with all of their steps."""
    # Joined first, so that what is cut and shifted is what will be stored.
    columns = join(columns, edits.joins, following=edits.following)
    columns = cut(columns, edits.drop_first, edits.drop_last)
    columns = shift(columns, edits.shift)
    if edits.keep is None:
        return columns
    return {name: x for name, x in columns.items() if name in edits.keep}


def cut(columns: Columns, first: int, last: int) -> Columns:
    """The columns without their first and last steps.

    Raises a UserError if no step is left.
    """
    # An episode that is shorter than what is cut off is reported as a bad one.
    steps = len(columns[ACTION])
    if first + last >= steps:
        raise UserError(
            f"drop_first={first} and drop_last={last} leave nothing of an episode of {steps} steps",
            argument="drop_first",
        )
    return {name: x[first : steps - last] for name, x in columns.items()}


def shift(columns: Columns, steps: int) -> Columns:
    """Observation t beside action t + steps. The steps that have no partner are left out."""
    length = len(columns[ACTION])
    if abs(steps) >= length:
        raise UserError(
            f"shift_actions={steps} leaves nothing of an episode of {length} steps",
            argument="shift_actions",
        )
    # Both keep as many steps: the observations lose their end where the action loses its start.
    kept = length - abs(steps)
    early = slice(max(-steps, 0), max(-steps, 0) + kept)  # of the observations
    late = slice(max(steps, 0), max(steps, 0) + kept)  # of the action
    return {name: x[late if name == ACTION else early] for name, x in columns.items()}


def join(columns: Columns, joins: Mapping[str, Sequence[str]], *, following: bool) -> Columns:
    """The columns with those of `joins` added, [T, D1 + D2 + …] each.

    following: the joined action of step t is what its parts are in step t + 1. The last step has
        none, so all columns end one step earlier.
    """
    joined = {
        name: np.concatenate([columns[part] for part in parts], axis=1)
        for name, parts in joins.items()
    }
    columns = {**columns, **joined}
    if not (following and ACTION in joined):
        return columns
    action = joined[ACTION][1:]
    return {**{name: x[:-1] for name, x in columns.items()}, ACTION: action}


def rests(episodes: Iterable[Columns]) -> dict[str, np.ndarray]:
    """{column: [D]}: REST of the range of each dim over all episodes; images are left out."""
    low: Columns = {}
    high: Columns = {}
    for columns in episodes:
        for name, x in columns.items():
            if x.dtype == np.uint8:
                continue
            # Values that are not finite make a bad episode, which is reported when it is read.
            finite = np.isfinite(x)
            least = np.min(x, axis=0, initial=np.inf, where=finite)
            largest = np.max(x, axis=0, initial=-np.inf, where=finite)
            low[name] = np.minimum(low.get(name, least), least)
            high[name] = np.maximum(high.get(name, largest), largest)
    return {name: REST * np.maximum(high[name].astype(np.float64) - low[name], 0.0) for name in low}


def moving(columns: Columns, rest: Mapping[str, np.ndarray]) -> slice:
    """The steps from the last one before anything moves to the first one after all moved.

    Everything that is numbers has to rest, which is to stay within `rest` of its first (or last)
    value. An episode in which nothing ever moves is kept as it is.
    """
    x = np.concatenate([columns[name].astype(np.float64) for name in rest], axis=1)
    tolerance = np.concatenate(list(rest.values()))
    from_start = (np.abs(x - x[0]) > tolerance).any(1)
    if not from_start.any():
        return slice(0, len(x))
    from_end = (np.abs(x - x[-1]) > tolerance).any(1)
    # The step before the first one that has moved, and the one after the last that has not arrived.
    first = max(int(np.argmax(from_start)) - 1, 0)
    last = len(x) - int(np.argmax(from_end[::-1]))
    return slice(first, min(last + 1, len(x)))


def thin(columns: Columns, every: int, deltas: Sequence[int]) -> Columns:
    """Each block of `every` steps as one: the observations of its first step, and its action.

    The action leads from the observation of a block to that of the next one. A target is the one
    at the end of the block; changes add up. The last block may be shorter.
    """
    length = len(columns[ACTION])
    starts = np.arange(0, length, every)
    action = columns[ACTION]
    thinned = action[np.minimum(starts + every, length) - 1].copy()
    if len(deltas):
        # Sums in float64, rounded once.
        sums = np.add.reduceat(action[:, list(deltas)].astype(np.float64), starts, axis=0)
        thinned[:, list(deltas)] = sums
    return {**{name: x[starts] for name, x in columns.items()}, ACTION: thinned}


def parse_deltas(text: str, dims: int) -> tuple[int, ...]:
    """The dims of the action that are changes, of "absolute", "deltas" or "deltas:0-5".

    dims: Da. Raises a UserError for anything else.
    """
    if text == "absolute":
        return ()
    if text == "deltas":
        return tuple(range(dims))
    name, _, ranges = text.partition(":")
    if name != "deltas":
        raise UserError(
            f"actions={text}: expected absolute (targets), deltas (changes), or deltas:0-5 (dims 0 "
            "to 5 are changes, the others targets).",
            argument="actions",
        )
    return tuple(listed_ranges(ranges, dims, "actions"))


def every_of(fps: float, to_fps: float) -> int:
    """How many steps of `fps` make one of `to_fps`. Raises a UserError unless it is a multiple."""
    if not fps:
        raise UserError(
            f"to_fps={to_fps:g}: the source does not say its steps per second: give fps=RATE too.",
            argument="to_fps",
        )
    every = round(fps / to_fps)
    # A source may state 29.97 for 30.
    if every < 1 or not math.isclose(every * to_fps, fps, rel_tol=5e-3):
        below = max(math.floor(fps / to_fps), 1)
        near = f"{fps / (below + 1):.4g} and {fps / below:.4g}"
        raise UserError(
            f"to_fps={to_fps:g}: of {fps:g} steps per second every n-th can be kept; near are "
            f"{near}.",
            argument="to_fps",
        )
    return every
