"""What must be true of demonstrations, whatever file they came from.

A NaN passes every clamp and every normalizer and ends in the weights, so it is
found here, at the door, and named: episode, step, key and dimension.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from dpjax.core.errors import UserError

Shape = tuple[int, ...]

FAR = 50  # ranges of the middle 98 %: no sensor moves like that, a wrong unit or decimal does


def check_episode(columns: Mapping[str, np.ndarray], shapes: Mapping[str, Shape]) -> list[str]:
    """What is wrong with one episode, a line each; [] where it is good.

    columns: {key: [T, ...]}.
    shapes: {key: shape of one step}, what the data set promises.
    """
    lengths = {key: len(column) for key, column in columns.items()}
    if not any(lengths.values()):
        return ["empty: expected at least 1 step, got 0"]
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"{n} of {key}" for key, n in lengths.items())
        return [f"expected one number of steps for all keys, got {counts}"]
    problems = []
    for key, column in columns.items():
        problems += _check_column(key, column, shapes[key])
    return problems


def is_image(shape: Shape, dtype: np.dtype) -> bool:
    """Whether a step of this shape and type is an image, uint8 [H, W, 3]."""
    return np.dtype(dtype) == np.uint8 and len(shape) == 3 and shape[-1] == 3


def why_no_image(shape: Shape, dtype: np.dtype) -> str:
    """What a step of this shape and type lacks to be an image, or ""."""
    if is_image(shape, dtype):
        return ""
    hint = ""
    if len(shape) == 3 and shape[0] == 3:
        hint = ": channels come last, transpose it"
    elif np.issubdtype(dtype, np.floating):
        hint = ": pixels are whole numbers from 0 to 255"
    return f"expected uint8 [H, W, 3], got {np.dtype(dtype)} {list(shape)}{hint}"


def _check_column(key: str, column: np.ndarray, shape: Shape) -> list[str]:
    if column.shape[1:] != tuple(shape):
        return [f"{key}: expected shape {tuple(shape)} a step, got {column.shape[1:]}"]
    if is_image(shape, column.dtype):
        return []
    if column.dtype == np.uint8:
        return [f"{key}: {why_no_image(shape, column.dtype)}"]
    if column.dtype != np.float32:
        return [f"{key}: expected float32 or images, got {column.dtype}"]
    # A sum is finite only if all its terms are, and makes no [T, ...] array of flags;
    # an overflow of finite terms is sorted out below.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(column.sum()):
            return []
    bad = np.argwhere(~np.isfinite(column))
    if not len(bad):
        return []
    step, *dims = bad[0].tolist()
    where = f"{key}[{', '.join(map(str, dims))}]" if dims else key
    count = f"{len(bad)} non-finite value{'s' * (len(bad) > 1)} in {key}"
    value = column[tuple(bad[0])]
    return [f"step {step}, {where}: expected finite numbers, got {value} ({count})"]


def outliers(
    columns: Mapping[str, np.ndarray], ends: np.ndarray, labels: Sequence[str] | None = None
) -> list[str]:
    """A line on each dim [N, D] with numbers far outside what it usually is.

    labels: [E] what the episodes are called; by their numbers where it is not given.

    Far: beyond the middle by FAR times the range of the middle 98 %. "limits" would
    squeeze all the rest into a corner of [-1, 1] for them.
    """
    said = []
    for key, column in columns.items():
        low, middle, high = np.quantile(column, [0.01, 0.5, 0.99], axis=0)
        far = np.abs(column - middle) > FAR * np.maximum(high - low, np.finfo(np.float32).tiny)
        for d in np.flatnonzero(far.any(0) & (high > low)):
            rows = np.flatnonzero(far[:, d])
            e = int(np.searchsorted(ends, rows[0], side="right"))
            step = rows[0] - (ends[e - 1] if e else 0)
            name = labels[e] if labels else f"episode {e}"
            said.append(
                f"{key}[{d}] is {column[rows[0], d]:g} at {name}, step {step}, where 98 % lie "
                f"in [{low[d]:g}, {high[d]:g}] ({len(rows)} such value{'s' * (len(rows) > 1)}): "
                "mend the data, or normalize by 'quantile'"
            )
    return said


def check_ends(ends: np.ndarray, num_steps: int, source: str) -> None:
    """Refuses ends [E] that don't cut `num_steps` rows into episodes of 1 step or more."""
    if len(ends) == 0:
        raise UserError(f"{source}: expected at least 1 episode, got 0.")
    short = np.flatnonzero(np.diff(ends, prepend=0) < 1)
    if len(short):
        e = short[0]
        start = ends[e - 1] if e else 0
        raise UserError(
            f"{source}: episode {e}: expected an end after row {start}, got {ends[e]} "
            "(ends must increase: no episode may be empty)."
        )
    if ends[-1] != num_steps:
        raise UserError(
            f"{source}: expected the last episode to end at the last of {num_steps} rows, "
            f"got {ends[-1]}."
        )


def check_columns(columns: Mapping[str, np.ndarray], ends: np.ndarray, source: str) -> None:
    """Refuses flat columns {key: [N, ...]} with ends [E] at the first bad episode."""
    for key, column in columns.items():
        check_ends(ends, len(column), f"{source}: {key}")
    shapes = {key: column.shape[1:] for key, column in columns.items()}
    start = 0
    for e, end in enumerate(ends):
        episode = {key: column[start:end] for key, column in columns.items()}
        for problem in check_episode(episode, shapes):
            raise UserError(f"{source}: episode {e}, {problem}.")
        start = end
