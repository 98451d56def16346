"""What must be true of demonstrations, whatever file they came from.

A NaN passes every clamp and every normalizer and ends in the weights. So it is refused where data
is read or written, and named: episode, step, key and dimension.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from dpjax.core.errors import UserError

Shape = tuple[int, ...]

# An outlier lies this many ranges of the middle 98 % away from the median: no sensor moves like
# that, but a wrong unit or a misplaced decimal point does.
FAR = 50


def check_episode(columns: Mapping[str, np.ndarray], shapes: Mapping[str, Shape]) -> list[str]:
    """The faults of one episode, one line each; [] if it is good.

    Args:
        columns: {key: [T, ...]}.
        shapes: {key: shape of one step}, as the data set promises it.
    """
    lengths = {key: len(column) for key, column in columns.items()}
    if not any(lengths.values()):
        return ["empty: expected at least 1 step, got 0"]
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{n} of {key}" for key, n in lengths.items())
        return [f"expected one number of steps for all keys, got {counts}"]
    # The shape of an episode is right: now its numbers.
    problems = []
    for key, column in columns.items():
        problems += _check_column(key, column, shapes[key])
    return problems


def is_image(shape: Shape, dtype: np.dtype) -> bool:
    """Whether a step of this shape and type is an image: uint8 [H, W, 3]."""
    return np.dtype(dtype) == np.uint8 and len(shape) == 3 and shape[-1] == 3


def image_problem(shape: Shape, dtype: np.dtype) -> str:
    """Why a step of this shape and type is not an image, with a hint; "" if it is one."""
    if is_image(shape, dtype):
        return ""
    # The two mistakes that are made most: PyTorch's order of axes, and pixels as floats.
    hint = ""
    if len(shape) == 3 and shape[0] == 3:
        hint = ": channels come last, transpose it"
    elif np.issubdtype(dtype, np.floating):
        hint = ": pixels are whole numbers from 0 to 255"
    return f"expected uint8 [H, W, 3], got {np.dtype(dtype)} {list(shape)}{hint}"


def _check_column(key: str, column: np.ndarray, shape: Shape) -> list[str]:
    """The faults of one column [T, ...] of an episode: shape, type, numbers that are not finite."""
    if column.shape[1:] != tuple(shape):
        return [f"{key}: expected shape {tuple(shape)} per step, got {column.shape[1:]}"]
    # Every uint8 [H, W, 3] is a valid image, and uint8 stands for nothing else.
    if is_image(shape, column.dtype):
        return []
    if column.dtype == np.uint8:
        return [f"{key}: {image_problem(shape, column.dtype)}"]
    if column.dtype != np.float32:
        return [f"{key}: expected float32 or images, got {column.dtype}"]
    # A sum is finite only if all its terms are, and needs no array of flags. A sum of finite terms
    # may overflow, which the second look below finds out.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(column.sum()):
            return []
    bad = np.argwhere(~np.isfinite(column))
    if not len(bad):
        return []
    # The first one is named in full, the others are counted.
    step, *dims = bad[0].tolist()
    where = f"{key}[{', '.join(map(str, dims))}]" if dims else key
    count = f"{len(bad)} non-finite value{'s' * (len(bad) > 1)} in {key}"
    value = column[tuple(bad[0])]
    return [f"step {step}, {where}: expected finite numbers, got {value} ({count})"]


class Outlier(NamedTuple):
    """One dimension of a column with numbers far outside of what it usually holds.

    key, dim: the column and the dimension.
    episode, step, value: the first such number, where it is and what it is.
    low, high: between them lie 98 % of the numbers.
    count: how many numbers are far outside.
    """

    key: str
    dim: int
    episode: int
    step: int
    value: float
    low: float
    high: float
    count: int

    def describe(self, episode: str) -> str:
        """The finding in one line, for an episode of that name."""
        return (
            f"{self.key}[{self.dim}] is {self.value:g} at {episode}, step {self.step}, where 98 % "
            f"lie in [{self.low:g}, {self.high:g}] ({self.count} such "
            f"value{'s' * (self.count > 1)})"
        )


def outliers(columns: Mapping[str, np.ndarray], ends: np.ndarray) -> list[Outlier]:
    """Dimensions with numbers further from the median than FAR times the range of the middle 98 %.

    The normalization "limits" would squeeze everything else into a corner of [-1, 1].

    Args:
        columns: {key: [N, D]}.
        ends: [E], the step after the last one of each episode.
    """
    findings = []
    for key, column in columns.items():
        # What is usual: quantiles, which a few wild numbers do not move.
        low, median, high = np.quantile(column, [0.01, 0.5, 0.99], axis=0)
        # Without the smallest positive number a constant dimension would be all outliers.
        limit = FAR * np.maximum(high - low, np.finfo(np.float32).tiny)
        far = np.abs(column - median) > limit  # [N, D]
        # A dimension that is nearly always constant has no usual range to be far from.
        for dim in np.flatnonzero(far.any(0) & (high > low)):
            # Step `steps[0]` of the columns, as a step of the episode that holds it.
            steps = np.flatnonzero(far[:, dim])
            episode = int(np.searchsorted(ends, steps[0], side="right"))
            start = ends[episode - 1] if episode else 0
            findings.append(
                Outlier(
                    key=key,
                    dim=int(dim),
                    episode=episode,
                    step=int(steps[0] - start),
                    value=column[steps[0], dim],
                    low=low[dim],
                    high=high[dim],
                    count=len(steps),
                )
            )
    return findings


def check_ends(ends: np.ndarray, num_steps: int, source: str) -> None:
    """Raises a UserError if ends [E] do not cut `num_steps` into episodes of 1 step or more."""
    if len(ends) == 0:
        raise UserError(f"{source}: expected at least 1 episode, got 0.")
    # Ends that do not increase: an empty episode, or one that runs backwards.
    short = np.flatnonzero(np.diff(ends, prepend=0) < 1)
    if len(short):
        episode = short[0]
        start = ends[episode - 1] if episode else 0
        raise UserError(
            f"{source}: episode {episode}: expected an end after step {start}, got {ends[episode]} "
            "(ends must increase: no episode may be empty)."
        )
    if ends[-1] != num_steps:
        raise UserError(
            f"{source}: expected the last episode to end at the last of {num_steps} steps, "
            f"got {ends[-1]}."
        )


def check_columns(columns: Mapping[str, np.ndarray], ends: np.ndarray, source: str) -> None:
    """Raises a UserError at the first bad episode of flat columns {key: [N, ...]} with ends [E]."""
    for key, column in columns.items():
        check_ends(ends, len(column), f"{source}: {key}")
    # Then the numbers, one episode after another, so that the message can name it.
    shapes = {key: column.shape[1:] for key, column in columns.items()}
    start = 0
    for number, end in enumerate(ends):
        episode = {key: column[start:end] for key, column in columns.items()}
        for problem in check_episode(episode, shapes):
            raise UserError(f"{source}: episode {number}, {problem}.")
        start = end
