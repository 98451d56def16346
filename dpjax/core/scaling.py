"""How one column of numbers is scaled: the offset and scale of equation (1) in `core.normalizer`.

Every threshold is relative to the data. So the same data in metres and in millimetres reaches the
network as the same numbers. Two kinds of dims are not simply scaled by their own range:

    constant   its range is at most CONSTANT of its largest magnitude. An action comes back as this
               constant exactly: its scale is 0, and the network's output has no effect.
    little     its range is below LITTLE of its magnitude, or of the largest range in its column.
               An action is scaled by its own range all the same, so that it is learned. An
               observation is scaled by the largest range of its column: the noise of a sensor that
               stands still must not reach the network at full scale.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

# float32 has a relative precision of 6e-8, so that a range of 1e-6 is a few roundings.
CONSTANT = 1e-6
LITTLE = 1e-3

# Each mode maps a column [N, D] to (center [D], half-range [D]), the offset and scale of (1).
# The second argument is the share of data beyond each limit; only `_quantile` uses it.
Statistics = Callable[[np.ndarray, float], tuple[np.ndarray, np.ndarray]]


def _limits(x: np.ndarray, _: float) -> tuple[np.ndarray, np.ndarray]:
    """[min, max] -> [-1, 1] (the default of Chi et al.'s code, 2023)."""
    low = x.min(0)  # [D]
    high = x.max(0)  # [D]
    return (high + low) / 2, (high - low) / 2


def _gaussian(x: np.ndarray, _: float) -> tuple[np.ndarray, np.ndarray]:
    """Zero mean, unit variance."""
    return x.mean(0), x.std(0)


def _quantile(x: np.ndarray, quantile: float) -> tuple[np.ndarray, np.ndarray]:
    """[q, 1 - q] quantiles -> [-1, 1]: limits that a few outliers cannot move."""
    low, high = np.quantile(x, [quantile, 1 - quantile], axis=0)  # two rows [D] of [2, D]
    return (high + low) / 2, (high - low) / 2


def _identity(x: np.ndarray, _: float) -> tuple[np.ndarray, np.ndarray]:
    """No change, for numbers that are well scaled already: rotations, one-hot codes, flags."""
    return np.zeros(x.shape[1:]), np.ones(x.shape[1:])


MODES: dict[str, Statistics] = {
    "limits": _limits,
    "gaussian": _gaussian,
    "quantile": _quantile,
    "identity": _identity,
}


class Scaling(NamedTuple):
    """The pair of (1) for one column, and which of its dims are not simply scaled by their range.

    offset, scale: [D] float64. A scale is 0 for constant dims of the action only.
    ranges: [D] the range of each dim over all steps, in data units.
    constant, little: bool [D], see above.
    flat: bool [D], dims that move although both of their quantiles are equal, such as a gripper
        that is closed in a few steps only. An action is then scaled by its whole range.
    """

    offset: np.ndarray
    scale: np.ndarray
    ranges: np.ndarray
    constant: np.ndarray
    little: np.ndarray
    flat: np.ndarray


def measure(
    x: np.ndarray,
    mode: str,
    *,
    is_action: bool,
    quantile: float = 0.01,
    min_range: float = 0.0,
    fixed: np.ndarray | None = None,
) -> Scaling:
    """How a column [N, D] is scaled.

    mode: a name in MODES.
    quantile: the share of the data beyond each limit in mode "quantile".
    min_range: above 0 it replaces the rule about dims that move little: a dim with a smaller range
        (in data units) is constant, and all others are scaled by their own range.
    fixed: bool [D], dims that keep their units whatever the mode (rotations).
    """
    # Sums over long columns would lose digits in float32.
    x = np.asarray(x, np.float64)
    center, half = MODES[mode](x, quantile)
    middle, reach = _limits(x, 0.0)  # of all steps, whatever the mode
    fixed = np.zeros(len(center), bool) if fixed is None else fixed
    # 1. Which dims move. The numbers of a rotation are of size 1, also where they are 0.
    size = np.where(fixed, 1.0, np.abs(middle) + reach)  # [D], the largest magnitude
    constant = _is_still(2 * reach, size, min_range)
    # Outliers count for neither range nor magnitude in mode "quantile".
    usual, usual_size = 2 * reach, size
    if mode == "quantile":
        usual, usual_size = 2 * half, np.abs(center) + half
    flat = ~constant & _is_still(usual, usual_size, min_range)
    largest = usual[~fixed].max(initial=0.0)
    little = ~constant & ~flat & (usual < LITTLE * np.maximum(usual_size, largest))
    little &= min_range == 0
    # 2. Rotations keep their units, and "identity" keeps all of them.
    kept = fixed | (mode == "identity")
    center = np.where(kept, 0.0, center)
    half = np.where(kept, 1.0, half)
    flat, little = flat & ~kept, little & ~kept
    # 3. Dims that are not scaled by their own range.
    if is_action:
        center = np.where(constant | flat, middle, center)
        half = np.where(constant, 0.0, np.where(flat, reach, half))
    else:
        center = np.where(constant & ~kept, middle, center)
        still = (constant | flat | little) & ~kept
        # A min_range is in data units, and so is the scale of the dims below it.
        unit = 1.0 if min_range > 0 else _unit(half, reach, size, ~constant & ~flat & ~kept, kept)
        half = np.where(still, unit, half)
    return Scaling(center, half, 2 * reach, constant & ~fixed, little, flat)


def _is_still(ranges: np.ndarray, size: np.ndarray, min_range: float) -> np.ndarray:
    """bool [D]: ranges [D] that are roundings of numbers of this size [D], or below min_range."""
    return (ranges <= CONSTANT * size) | (ranges < min_range)


def _unit(
    half: np.ndarray, reach: np.ndarray, size: np.ndarray, moving: np.ndarray, kept: np.ndarray
) -> float:
    """The half-range that stands for a whole column of an observation, above 0."""
    # The dim that moves most gives it. If none moves, a flat dim's reach does, and if all are
    # constant, their size. Each of these has the unit of the column.
    for candidates in (
        half[moving],
        np.where(reach > CONSTANT * size, reach, 0)[~kept],
        size[~kept],
    ):
        largest = float(candidates.max(initial=0.0))
        if largest > 0:
            return largest
    return 1.0  # all numbers are 0
