"""Reads a converted data set, compares it with what was written, and describes it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from dpjax.convert.source import ACTION
from dpjax.core.errors import UserError
from dpjax.data import rlds
from dpjax.data.episodes import digest


class Range(NamedTuple):
    """Shape of one step of a column, and the minimum and maximum of its numbers."""

    shape: tuple[int, ...]
    low: float
    high: float


class Summary(NamedTuple):
    """The content of a data set.

    lengths: [E] steps of each episode. ranges: {column: Range}.
    """

    lengths: list[int]
    ranges: dict[str, Range]


def read_back(path: Path, observations: Sequence[str], digests: Sequence[str]) -> Summary:
    """Reads all of a data set; raises a UserError if an episode differs from what was written.

    observations: columns of the data set besides the action.
    digests: [E] digests of the episodes, taken from the arrays that the writer received.
    """
    # {column: path inside an RLDS step}.
    features = {**{key: f"observation/{key}" for key in observations}, ACTION: ACTION}
    episodes = rlds.stream(path, features=features)
    # Gathered on the way, so that describing the data set needs no second pass.
    lengths: list[int] = []
    ranges: dict[str, Range] = {}
    # One episode is in memory at a time.
    progress = tqdm(episodes, total=len(digests), desc="reading back", unit=" episodes")
    for e, columns in enumerate(progress):
        # float32 and PNG are lossless, so the arrays must agree bit for bit.
        if digest(columns) != digests[e]:
            raise UserError(f"{path}: episode {e} reads back different from what was written.")
        lengths.append(len(columns[ACTION]))
        ranges = _widen(ranges, columns)
    return Summary(lengths, ranges)


def _widen(ranges: Mapping[str, Range], columns: Mapping[str, np.ndarray]) -> dict[str, Range]:
    """The ranges, widened to include an episode's numbers."""
    wider = {}
    for key, column in columns.items():
        # Before its first episode, a column has an empty range: inf to -inf.
        _, low, high = ranges.get(key, Range((), np.inf, -np.inf))
        wider[key] = Range(
            column.shape[1:], min(low, float(column.min())), max(high, float(column.max()))
        )
    return wider


def table(path: Path, summary: Summary, fps: float) -> str:
    """One line about the whole data set and one line per column.

    fps: steps per second; 0 if it is not known.
    """
    lengths = summary.lengths
    # The heading has two lines. Below it every column has one, in fields of fixed width.
    rate = f"{fps:g} steps per second" if fps else "steps per second not known"
    lines = [
        f"{path}: {len(lengths):,} episodes, {sum(lengths):,} steps, {min(lengths)} to "
        f"{max(lengths)} per episode, {rate}",
        f"{'key':<16} {'shape':<14} {'min':>10} {'max':>10}",
    ]
    for key, (shape, low, high) in summary.ranges.items():
        note = "  images" if len(shape) == 3 else ""  # [H, W, 3]
        lines.append(f"{key:<16} {str(list(shape)):<14} {low:>10.4g} {high:>10.4g}{note}")
    return "\n".join(lines)
