"""Checks on demonstrations, the same for every file format.

A NaN passes through clamps and normalizers unnoticed and ends up in the weights. So data is checked
where it is read or written, and the error names the episode, step, key and dimension.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from dpjax.core.errors import UserError

Shape = tuple[int, ...]

# A value is an outlier if its distance to the median is more than this many times the range of the
# middle 98 %. No sensor moves that far; a wrong unit or a misplaced decimal point does.
FAR = 50


def check_episode(columns: Mapping[str, np.ndarray], shapes: Mapping[str, Shape]) -> list[str]:
    """The problems of one episode, one line each; [] if it is valid.

    Args:
        columns: {key: [T, ...]}.
        shapes: {key: shape of one step}, as the data set declares it.
    """
    # The number of steps: at least one, and the same for every key.
    lengths = {key: len(column) for key, column in columns.items()}
    if not any(lengths.values()):
        return ["empty: expected at least 1 step, got 0"]
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{n} of {key}" for key, n in lengths.items())
        return [f"expected one number of steps for all keys, got {counts}"]
    # Then each column separately: shape, type and values.
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
    # The two most common mistakes: PyTorch's channel-first layout, and pixels as floats.
    hint = ""
    if len(shape) == 3 and shape[0] == 3:
        hint = ": channels come last, transpose it"
    elif np.issubdtype(dtype, np.floating):
        hint = ": pixels are whole numbers from 0 to 255"
    return f"expected uint8 [H, W, 3], got {np.dtype(dtype)} {list(shape)}{hint}"


def _check_column(key: str, column: np.ndarray, shape: Shape) -> list[str]:
    """The problems of one column [T, ...] of an episode: shape, type and non-finite values."""
    # The shape of a step, then its type: a wrong one would make the values meaningless.
    if column.shape[1:] != tuple(shape):
        return [f"{key}: expected shape {tuple(shape)} per step, got {column.shape[1:]}"]
    # Every uint8 array [H, W, 3] is a valid image; uint8 of any other shape is an error.
    if is_image(shape, column.dtype):
        return []
    if column.dtype == np.uint8:
        return [f"{key}: {image_problem(shape, column.dtype)}"]
    if column.dtype != np.float32:
        return [f"{key}: expected float32 or images, got {column.dtype}"]
    # Fast path: a sum is finite only if all its terms are, and it needs no boolean array.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(column.sum()):
            return []
    # Slow path, which is exact: a sum of large finite values can overflow too.
    bad = np.argwhere(~np.isfinite(column))
    if not len(bad):
        return []
    # The message locates the first non-finite value and counts the others.
    step, *dims = bad[0].tolist()
    where = f"{key}[{', '.join(map(str, dims))}]" if dims else key
    count = f"{len(bad)} non-finite value{'s' * (len(bad) > 1)} in {key}"
    value = column[tuple(bad[0])]
    return [f"step {step}, {where}: expected finite numbers, got {value} ({count})"]


class Outlier(NamedTuple):
    """A dimension of a column that has values far outside its usual range.

    key, dim: the column and the dimension.
    episode, step, value: the position of the first outlier, and its value.
    low, high: the range of the middle 98 % of the values.
    count: the number of outliers in this dimension.
    episodes: all episodes with outliers in this dimension.
    """

    key: str
    dim: int
    episode: int
    step: int
    value: float
    low: float
    high: float
    count: int
    episodes: tuple[int, ...]

    def describe(self, episode: str) -> str:
        """The outlier as one line of text; `episode` is how the text names its episode."""
        return (
            f"{self.key}[{self.dim}] is {self.value:g} at {episode}, step {self.step}, where 98 % "
            f"lie in [{self.low:g}, {self.high:g}] ({self.count} such "
            f"value{'s' * (self.count > 1)})"
        )


def outliers(columns: Mapping[str, np.ndarray], ends: np.ndarray) -> list[Outlier]:
    """Dimensions with values further from the median than FAR times the range of the middle 98 %.

    With "limits" normalization, one such value squeezes all others into a small part of [-1, 1].

    Args:
        columns: {key: [N, D]}.
        ends: [E], the step after the last one of each episode.
    """
    findings = []
    for key, column in columns.items():
        # Quantiles [D] give the usual range: a few outliers do not move them.
        low, median, high = np.quantile(column, [0.01, 0.5, 0.99], axis=0)
        # The lower bound keeps the limit of a constant dimension above zero.
        limit = FAR * np.maximum(high - low, np.finfo(np.float32).tiny)
        far = np.abs(column - median) > limit  # [N, D]
        # A dimension that is nearly always constant has no usual range to be far from.
        for dim in np.flatnonzero(far.any(0) & (high > low)):
            # From a step of the column to an episode and a step within that episode.
            steps = np.flatnonzero(far[:, dim])
            episode = int(np.searchsorted(ends, steps[0], side="right"))
            start = ends[episode - 1] if episode else 0
            # The message shows the first outlier; the others are only counted.
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
                    episodes=tuple(np.unique(np.searchsorted(ends, steps, side="right")).tolist()),
                )
            )
    return findings


def check_ends(ends: np.ndarray, num_steps: int, source: str) -> None:
    """Raises a UserError unless ends [E] divide `num_steps` into episodes of at least one step."""
    # At least one episode.
    if len(ends) == 0:
        raise UserError(f"{source}: expected at least 1 episode, got 0.")
    # Every episode ends after it starts: ends that do not increase make an empty episode.
    short = np.flatnonzero(np.diff(ends, prepend=0) < 1)
    if len(short):
        episode = short[0]
        start = ends[episode - 1] if episode else 0
        raise UserError(
            f"{source}: episode {episode}: expected an end after step {start}, got {ends[episode]} "
            "(ends must increase: no episode may be empty)."
        )
    # The episodes cover all steps.
    if ends[-1] != num_steps:
        raise UserError(
            f"{source}: expected the last episode to end at the last of {num_steps} steps, "
            f"got {ends[-1]}."
        )


def check_columns(columns: Mapping[str, np.ndarray], ends: np.ndarray, source: str) -> None:
    """Raises a UserError for the first invalid episode of flat columns {key: [N, ...]}.

    ends: [E], the step after the last one of each episode.
    """
    # The ends must fit the length of every column.
    for key, column in columns.items():
        check_ends(ends, len(column), f"{source}: {key}")
    # Then the values, one episode at a time, so that the message can name the episode.
    shapes = {key: column.shape[1:] for key, column in columns.items()}
    start = 0
    for number, end in enumerate(ends):
        episode = {key: column[start:end] for key, column in columns.items()}
        # The first problem is enough for an error.
        for problem in check_episode(episode, shapes):
            raise UserError(f"{source}: episode {number}, {problem}.")
        start = end
