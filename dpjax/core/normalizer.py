"""Affine maps between data units and network units.

    x̂ = (x - offset) / scale                                                (1)

There is one pair (offset, scale) per key and dimension, fitted to the training data. The pairs
are part of `Params` and therefore of every checkpoint: a policy is always loaded together with
the units that it was trained in.
"""

from collections.abc import Callable, Mapping
import logging

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from dpjax.core.errors import UserError, choices

Array = jax.Array

log = logging.getLogger("dpjax")


@struct.dataclass
class Normalizer:
    """Equation (1), with one offset and one scale per key.

    offset, scale: {key: [D]}, float32. Both methods raise UserError for any other key.
    """

    offset: dict[str, Array]
    scale: dict[str, Array]

    def normalize(self, tree: Mapping[str, Array]) -> dict[str, Array]:
        """{key: [..., D]} from data units to network units, float32."""
        # Images arrive as uint8 and some observations as float64: all become float32.
        return {
            key: (jnp.asarray(x, jnp.float32) - _broadcast(self.offset, key, x))
            / _broadcast(self.scale, key, x)
            for key, x in tree.items()
        }

    def restore(self, key: str, x: Array) -> Array:
        """[..., D] of one key from network units back to data units."""
        return x * _broadcast(self.scale, key, x) + _broadcast(self.offset, key, x)


def _broadcast(table: Mapping[str, Array], key: str, x: Array) -> Array:
    """table[key] [D] with as many axes as x, so that it broadcasts to x [..., D]."""
    if key not in table:
        raise UserError(f"normalizer: no statistics for {key!r}; {choices(key, table)}.")
    leaf = table[key]  # [D]
    return jnp.reshape(leaf, (1,) * (x.ndim - leaf.ndim) + leaf.shape)  # [1, …, 1, D]


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

# (offset, scale) per color channel, for pixels 0..255. "unit" maps them to [-1, 1]. "imagenet"
# gives ImageNet zero mean and unit variance, as pretrained encoders expect (the constants are
# those of torchvision, times 255).
IMAGE_MODES = {
    "unit": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
}


def fit(
    columns: Mapping[str, np.ndarray],
    modes: Mapping[str, str],
    *,
    quantile: float = 0.01,
    min_range: float = 1e-4,
    fixed: Mapping[str, np.ndarray] | None = None,
) -> Normalizer:
    """Fits a normalizer to `columns` {key: [N, D]}. Near-constant dims are logged as warnings.

    modes: {key: name in MODES}, one for every column; for images [N, H, W, 3] a name in
        IMAGE_MODES.
    quantile: the share of the data beyond each limit in mode "quantile".
    min_range: a dim whose range is smaller than this (in data units) gets scale 1, so that the
        noise of a constant is not enlarged to [-1, 1].
    fixed: {key: bool [D]} dims that keep their units whatever the mode (rotations).

    Raises UserError if a mode is unknown.
    """
    offset: dict[str, Array] = {}
    scale: dict[str, Array] = {}
    for key, x in columns.items():
        # 1. Images, the only columns with four axes. Their statistics are constants, so a data
        # set of any size is fitted without reading its pixels.
        _check_mode(key, modes[key], is_image=len(x.shape) == 4)
        if len(x.shape) == 4:
            offset[key], scale[key] = jnp.asarray(IMAGE_MODES[modes[key]], jnp.float32)
            continue
        # 2. Numbers: center and half-range. Sums over long columns would lose digits in float32.
        x = np.asarray(x, np.float64)
        center, half = MODES[modes[key]](x, quantile)
        # 3. Constant dims. One outlier gives an otherwise constant dim a large range, but its
        # quantiles (2 half apart) stay equal. So a dim is constant if either of them is small.
        constant = np.minimum(np.ptp(x, axis=0), 2 * half) < min_range
        if fixed and key in fixed:
            # 4. Rotations keep their units. A constant one needs no warning: robots often keep
            # the orientation of the gripper.
            center = np.where(fixed[key], 0.0, center)
            half = np.where(fixed[key], 1.0, half)
            constant &= ~fixed[key]
        # 5. The pair of (1), with a warning for constant dims: they may be a recording fault.
        scale[key] = jnp.asarray(np.where(constant, 1.0, half), jnp.float32)
        offset[key] = jnp.asarray(center, jnp.float32)
        for d in np.flatnonzero(constant):
            log.warning(
                "%s[%d] is constant to %g over the training data: scale 1", key, d, min_range
            )
    return Normalizer(offset, scale)


def _check_mode(key: str, mode: str, *, is_image: bool) -> None:
    """Raises UserError unless `mode` exists for images, or for columns of numbers."""
    allowed = IMAGE_MODES if is_image else MODES
    if mode not in allowed:
        raise UserError(
            f"modes.{key}={mode!r} is unknown; {choices(mode, allowed)}.",
            argument=f"modes.{key}",
        )
