"""Units of other libraries as offset and scale, x̂ = (x - offset) / scale, and back.

    the original   x̂ = x s + o                              scale = 1/s, offset = -o/s
    LeRobot        x̂ = 2 (x - low)/(high - low) - 1          scale = (high - low)/2
                   x̂ = (x - mean)/(std + 1e-8)               scale = std + 1e-8

Images are 0..255 here and 0..1 there: both are times 255.
"""

from collections.abc import Mapping

import numpy as np

from dpjax.interop.imported import refuse

EPSILON = 1e-8  # LeRobot's, added to a deviation and in the place of a range of 0
SMALLEST, LARGEST = 1e-8, 1e8  # of a scale that can be meant
PIXELS = 255.0
RANGES = {  # LeRobot's mode: the names of low and high
    "MIN_MAX": ("min", "max"),
    "QUANTILES": ("q01", "q99"),
    "QUANTILE10": ("q10", "q90"),
}


def original(source: str, name: str, scale: np.ndarray, offset: np.ndarray, unit: float = 1.0):
    """(offset, scale) of the original's x s + o. unit: 255 for images."""
    for part, x in (("scale", scale), ("offset", offset)):
        check(source, f"{name}.{part}", x, x if part == "scale" else None)
    scale, offset = np.float64(scale).reshape(-1), np.float64(offset).reshape(-1)
    return np.float32(-offset / scale * unit), np.float32(unit / scale)


def of_key(source: str, norms: Mapping[str, np.ndarray], key: str, unit: float = 1.0):
    """(offset, scale) of a key of the original's normalizer, {"<key>.scale": [D], …}."""
    name = f"normalizer.params_dict.{key}"
    for part in ("scale", "offset"):
        if f"{key}.{part}" not in norms or norms[f"{key}.{part}"].ndim != 1:
            raise refuse(source, f"{name}.{part}", "a number a dim", "no such array")
    return original(source, name, norms[f"{key}.scale"], norms[f"{key}.offset"], unit)


def check_keys(source: str, norms: Mapping[str, np.ndarray], keys) -> None:
    """Refuses units of what is not observed."""
    known = {f"{key}.{part}" for key in keys for part in ("scale", "offset")}
    if left := sorted(set(norms) - known):
        names = ", ".join(f"normalizer.params_dict.{name}" for name in left[:5])
        raise refuse(source, "normalizer", f"units of {', '.join(keys)}", names)


def check(source: str, name: str, x: np.ndarray, scale: np.ndarray | None = None) -> None:
    """Refuses numbers that are not finite, and scales that can't be meant, by their dim."""
    x = np.asarray(x).reshape(-1)
    bad = ~np.isfinite(x)
    if scale is not None:
        size = np.abs(np.asarray(scale, np.float64).reshape(-1))
        bad |= ~((size >= SMALLEST) & (size <= LARGEST))
    if bad.any():
        dim = int(np.flatnonzero(bad)[0])
        expected = f"a number from {SMALLEST:g} to {LARGEST:g}" if scale is not None else "a number"
        raise refuse(source, f"{name}[{dim}]", expected, x[dim])


def lerobot(
    source: str,
    key: str,
    mode: str,
    stats: Mapping[str, np.ndarray],
    size: int,
    *,
    unit: float = 1.0,
    acts: bool = False,
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """(offset, scale, constant dims) of a feature that LeRobot normalizes in that mode.

    size: numbers of the feature, 3 for images. unit: 255 for images. acts: it is the action,
        which is restored; LeRobot restores without the 1e-8 of a deviation.
    """
    if mode == "IDENTITY":
        return np.zeros(size, np.float32), np.full(size, unit, np.float32), []
    names = ("mean", "std") if mode == "MEAN_STD" else RANGES[mode]
    first, second = (_stat(source, key, name, mode, stats, size) for name in names)
    if mode == "MEAN_STD":
        check(source, f"{key}.std", second, second)
        deviation = second if acts else second + np.float32(EPSILON)
        return np.float32(first * unit), np.float32(np.float64(deviation) * unit), []
    low, high = np.float64(first), np.float64(second)
    constant = low == high
    check(source, f"{key}.{names[1]} - {names[0]}", high - low, np.where(constant, 1, high - low))
    # What is constant is -1 there. Divided by 1e-8, noise would be blown up; an action is only
    # restored, and to just that constant.
    half = np.where(constant, EPSILON / 2 if acts else 1.0, (high - low) / 2)
    middle = np.where(constant, low + half, (high + low) / 2)
    dims = [int(dim) for dim in np.flatnonzero(constant)]
    return np.float32(middle * unit), np.float32(half * unit), dims


def _stat(source, key, name, mode, stats, size) -> np.ndarray:
    if name not in stats:
        raise refuse(source, f"{key}.{name}", f"a statistic, as {mode} needs", "nothing")
    x = np.asarray(stats[name], np.float32).reshape(-1)
    if len(x) != size:
        raise refuse(source, f"{key}.{name}", f"{size} numbers", f"{len(x)}")
    check(source, f"{key}.{name}", x)
    return x


def limits(offset: np.ndarray, scale: np.ndarray):
    """float32 (low, high, dims) for which `lerobot` gives back this offset and scale.

    dims: those for which no such pair was found near by; theirs are the nearest.
    """
    grid = lambda x: _around(np.float64(x))
    low, high = grid(offset - np.float64(scale)), grid(offset + np.float64(scale))
    low, high = low[:, :, None], high[:, None, :]
    half = np.float32((np.float64(high) - low) / 2)
    middle = np.float32((np.float64(high) + low) / 2)
    good = (half == scale[:, None, None]) & (middle == offset[:, None, None])
    return _pick(low, high, good)


def moments(offset: np.ndarray, scale: np.ndarray):
    """float32 (mean, std, dims) of images, likewise."""
    mean = _around(np.float64(offset) / PIXELS)[:, :, None]
    std = _around(np.float64(scale) / PIXELS - EPSILON)[:, None, :]
    back = np.float32(np.float64(std + np.float32(EPSILON)) * PIXELS)
    good = (np.float32(mean * PIXELS) == offset[:, None, None]) & (back == scale[:, None, None])
    return _pick(mean, std, good)


def _around(x: np.ndarray) -> np.ndarray:
    """[D] -> [D, 9]: the float32 nearest to each number first, then its neighbours."""
    found = [np.float32(x)]
    for way in (-np.inf, np.inf):
        step = found[0]
        for _ in range(4):
            step = np.nextafter(step, np.float32(way))
            found.append(step)
    return np.stack(found, axis=-1)


def _pick(first, second, good):
    """The first good pair of every dim, or the nearest pair, and the dims without a good one."""
    dims, count = len(good), good.shape[1]
    best = good.reshape(dims, -1).argmax(1)  # 0, the nearest, where none is good
    row, column = best // count, best % count
    at = np.arange(dims)
    bad = [int(dim) for dim in np.flatnonzero(~good.reshape(dims, -1).any(1))]
    return first[at, row, 0], second[at, 0, column], bad
