"""Converts other libraries' normalization to x̂ = (x - offset) / scale, and back.

    Chi et al. 2023   x̂ = x s + o                            scale = 1/s, offset = -o/s
    LeRobot           x̂ = 2 (x - low)/(high - low) - 1        scale = (high - low)/2
                      x̂ = (x - mean)/(std + 1e-8)             scale = std + 1e-8

Pixels are 0..255 in dpjax and 0..1 in both libraries, so the offset and scale of an image are
multiplied by 255.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from dpjax.interop.imported import refuse

Unit = tuple[np.ndarray, np.ndarray]  # (offset, scale), each float32 [D]

# LeRobot adds it to a standard deviation, and divides by it where low equals high.
EPSILON = 1e-8
# Scales outside these bounds come from a damaged file, never from data.
MIN_SCALE = 1e-8
MAX_SCALE = 1e8
PIXEL_MAX = 255.0  # pixels in dpjax are 0..255
RANGES = {  # {LeRobot's mode: its names of low and high}
    "MIN_MAX": ("min", "max"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}
NEIGHBORS = 4  # float32 numbers tried on each side in search of an exact inverse


def from_chi2023(
    source: str, normalizer: Mapping[str, np.ndarray], key: str, unit: float = 1.0
) -> Unit:
    """(offset, scale) of one key of Chi et al.'s normalizer.

    normalizer: {"<key>.scale": [D], "<key>.offset": [D], …}. unit: PIXEL_MAX for images.
    Raises UserError if one is absent or not finite, or if a scale is out of range.
    """
    name = f"normalizer.params_dict.{key}"
    # Both must be present, as vectors.
    for part in ("scale", "offset"):
        if f"{key}.{part}" not in normalizer or normalizer[f"{key}.{part}"].ndim != 1:
            raise refuse(source, f"{name}.{part}", "one number per dimension", "no such array")
    s = normalizer[f"{key}.scale"]
    o = normalizer[f"{key}.offset"]
    check_numbers(source, f"{name}.scale", s, scale=s)
    check_numbers(source, f"{name}.offset", o)
    # In float64, so that the result is the float32 nearest to the exact one.
    s = np.float64(s).reshape(-1)
    o = np.float64(o).reshape(-1)
    return np.float32(-o / s * unit), np.float32(unit / s)


def check_keys(source: str, normalizer: Mapping[str, np.ndarray], keys: Iterable[str]) -> None:
    """Raises UserError if the normalizer has keys that the policy does not observe."""
    # Left-over keys mean that the config and the weights are of two different policies.
    known = {f"{key}.{part}" for key in keys for part in ("scale", "offset")}
    if unknown := sorted(set(normalizer) - known):
        names = ", ".join(f"normalizer.params_dict.{name}" for name in unknown[:5])
        raise refuse(source, "normalizer", f"units of {', '.join(keys)}", names)


def check_numbers(source: str, name: str, x: np.ndarray, scale: np.ndarray | None = None) -> None:
    """Raises UserError, with the dimension, for numbers that are not finite.

    scale: numbers of x's size that must lie between MIN_SCALE and MAX_SCALE too.
    """
    x = np.asarray(x).reshape(-1)
    bad = ~np.isfinite(x)
    # A scale of 0 would divide by 0 when it is inverted.
    if scale is not None:  # a negative scale mirrors a dimension, which is allowed
        size = np.abs(np.asarray(scale, np.float64).reshape(-1))
        bad |= ~((size >= MIN_SCALE) & (size <= MAX_SCALE))
    if bad.any():
        dim = int(np.flatnonzero(bad)[0])
        in_range = f"a number from {MIN_SCALE:g} to {MAX_SCALE:g}"
        raise refuse(source, f"{name}[{dim}]", "a number" if scale is None else in_range, x[dim])


def from_lerobot(
    source: str,
    key: str,
    mode: str,
    stats: Mapping[str, np.ndarray],
    size: int,
    *,
    unit: float = 1.0,
    is_action: bool = False,
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """(offset, scale, constant dimensions) of a feature that LeRobot normalizes with `mode`.

    size: numbers of the feature, 3 for images. unit: PIXEL_MAX for images. is_action: the
    feature is unnormalized, where LeRobot does not add 1e-8 to the standard deviation.
    """
    # Not normalized: offset 0 and scale 1, or 255 for images, whose pixels are 0..255 here.
    if mode == "IDENTITY":
        return np.zeros(size, np.float32), np.full(size, unit, np.float32), []
    # Mean and standard deviation. The 1e-8 is added in float32, as LeRobot does.
    if mode == "MEAN_STD":
        mean, std = (_statistic(source, key, name, mode, stats, size) for name in ("mean", "std"))
        check_numbers(source, f"{key}.std", std, scale=std)
        deviation = std if is_action else std + np.float32(EPSILON)
        return np.float32(mean * unit), np.float32(np.float64(deviation) * unit), []

    # The modes with limits map [low, high] to [-1, 1].
    low_name, high_name = RANGES[mode]
    low = np.float64(_statistic(source, key, low_name, mode, stats, size))
    high = np.float64(_statistic(source, key, high_name, mode, stats, size))
    constant = low == high
    # The width of a constant dimension is not used below; 1 passes the check.
    width = np.where(constant, 1, high - low)
    check_numbers(source, f"{key}.{high_name} - {low_name}", high - low, scale=width)
    # LeRobot maps a constant dimension to -1 and divides by 1e-8, which would amplify any noise
    # of an observation; the scale is 1 here instead. An action is only unnormalized, and then
    # LeRobot's tiny scale correctly gives the constant.
    half = np.where(constant, EPSILON / 2 if is_action else 1.0, (high - low) / 2)
    middle = np.where(constant, low + half, (high + low) / 2)
    dims = [int(dim) for dim in np.flatnonzero(constant)]
    return np.float32(middle * unit), np.float32(half * unit), dims


def _statistic(
    source: str, key: str, name: str, mode: str, stats: Mapping[str, np.ndarray], size: int
) -> np.ndarray:
    """One statistic of a feature, checked: float32 [size]."""
    if name not in stats:
        raise refuse(source, f"{key}.{name}", f"a statistic, as {mode} needs", "nothing")
    x = np.asarray(stats[name], np.float32).reshape(-1)
    if len(x) != size:
        raise refuse(source, f"{key}.{name}", f"{size} numbers", f"{len(x)}")
    check_numbers(source, f"{key}.{name}", x)
    return x


def limits(offset: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """float32 (low, high) for which `from_lerobot` gives back this offset and scale.

    offset, scale: float32 [D]. The third value lists the dimensions for which no such pair
    exists among the neighboring float32 numbers; they get the nearest pair.
    """
    # 9 candidates for each limit; all 81 pairs are tried at once, as arrays [D, 9, 9].
    low = _neighbors(offset - np.float64(scale))[:, :, None]
    high = _neighbors(offset + np.float64(scale))[:, None, :]
    half = np.float32((np.float64(high) - low) / 2)
    middle = np.float32((np.float64(high) + low) / 2)
    exact = (half == scale[:, None, None]) & (middle == offset[:, None, None])
    return _first_exact(low, high, exact)


def moments(offset: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """float32 (mean, std) for which `from_lerobot` gives back the offset and scale of an image.

    Returns the same three values as `limits`.
    """
    # The same search as in `limits`, with the arithmetic of MEAN_STD.
    mean = _neighbors(np.float64(offset) / PIXEL_MAX)[:, :, None]
    std = _neighbors(np.float64(scale) / PIXEL_MAX - EPSILON)[:, None, :]
    scale_again = np.float32(np.float64(std + np.float32(EPSILON)) * PIXEL_MAX)
    offset_again = np.float32(mean * PIXEL_MAX)
    exact = (offset_again == offset[:, None, None]) & (scale_again == scale[:, None, None])
    return _first_exact(mean, std, exact)


def _neighbors(x: np.ndarray) -> np.ndarray:
    """[D] -> [D, 9]: the float32 nearest to each number first, then those on its two sides."""
    # Converting to limits and back is off by a few units in the last place at most.
    nearest = np.float32(x)
    columns = [nearest]
    for direction in (-np.inf, np.inf):
        step = nearest
        for _ in range(NEIGHBORS):
            step = np.nextafter(step, np.float32(direction))
            columns.append(step)
    return np.stack(columns, axis=-1)


def _first_exact(
    first: np.ndarray, second: np.ndarray, exact: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """The first exact pair of every dimension, otherwise the nearest one.

    first: [D, 9, 1] and second: [D, 1, 9] candidates. exact: bool [D, 9, 9]. The third value
    lists the dimensions without an exact pair.
    """
    # argmax of booleans is the first True; candidates are ordered by their distance.
    dims = len(exact)
    count = exact.shape[1]
    best = exact.reshape(dims, -1).argmax(1)  # 0, the nearest pair, where none is exact
    every_dim = np.arange(dims)
    inexact = [int(dim) for dim in np.flatnonzero(~exact.reshape(dims, -1).any(1))]
    return first[every_dim, best // count, 0], second[every_dim, 0, best % count], inexact
