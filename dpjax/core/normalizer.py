"""Affine maps between the units of the data and the units of the network.

    x̂ = (x - offset) / scale                                                (1)

One pair a key and dimension, fitted on the training columns, kept in `Params` and
so in every checkpoint: a policy can't be loaded without the units it was trained in.
"""

from typing import Callable, Mapping

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from dpjax.core.errors import UserError, choices

Array = jax.Array


@struct.dataclass
class Normalizer:
    """Equation (1), one offset and one scale a key.

    offset, scale: {key: [D]}, float32. A key that is in neither is an error.
    """

    offset: dict[str, Array]
    scale: dict[str, Array]

    def normalize(self, tree: Mapping[str, Array]) -> dict[str, Array]:
        """{key: [..., D]} from data units to network units."""
        return {
            key: (jnp.asarray(x, jnp.float32) - self._of(self.offset, key, x))
            / self._of(self.scale, key, x)
            for key, x in tree.items()
        }

    def restore(self, key: str, x: Array) -> Array:
        """[..., D] of one key from network units back to data units."""
        return x * self._of(self.scale, key, x) + self._of(self.offset, key, x)

    def _of(self, table, key, x):
        if key not in table:
            raise UserError(f"normalizer: no statistics for {key!r}; {choices(key, table)}.")
        leaf = table[key]
        return jnp.reshape(leaf, (1,) * (x.ndim - leaf.ndim) + leaf.shape)


def _limits(x: np.ndarray, _: float):
    """[min, max] -> [-1, 1] (Chi et al. 2023, the default of their code)."""
    low, high = x.min(0), x.max(0)
    return (high + low) / 2, (high - low) / 2


def _gaussian(x: np.ndarray, _: float):
    """Zero mean, unit variance."""
    return x.mean(0), x.std(0)


def _quantile(x: np.ndarray, quantile: float):
    """[q, 1 - q] -> [-1, 1]: limits that one outlier can't move."""
    low, high = np.quantile(x, [quantile, 1 - quantile], axis=0)
    return (high + low) / 2, (high - low) / 2


def _identity(x: np.ndarray, _: float):
    """For what is in good units already: rotations, one-hot, flags."""
    return np.zeros(x.shape[1:]), np.ones(x.shape[1:])


# Of pixels 0..255: to [-1, 1], or by the mean and deviation of ImageNet's (torchvision).
IMAGE_MODES = {
    "unit": ((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    "imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
}

MODES: dict[str, Callable] = {
    "limits": _limits,
    "gaussian": _gaussian,
    "quantile": _quantile,
    "identity": _identity,
}


def fit(
    columns: Mapping[str, np.ndarray],
    modes: Mapping[str, str],
    *,
    quantile: float = 0.01,
    min_range: float = 1e-4,
    fixed: Mapping[str, np.ndarray] | None = None,
) -> tuple[Normalizer, list[str]]:
    """A normalizer for `columns` {key: [N, D]} and a line on each near-constant dim.

    modes: {key: name of a mode in MODES}, one for every column; for images [N, H, W, 3],
        of which no pixel is read, in IMAGE_MODES.
    quantile: the share left out at each end by the mode "quantile".
    min_range: a dim whose range is below this (data units) gets scale 1, so that
        noise in a constant is not blown up to [-1, 1].
    fixed: {key: bool [D]} dims that keep their units, whatever the mode (rotations).
    """
    offset, scale, said = {}, {}, []
    for key, x in columns.items():
        known = IMAGE_MODES if len(x.shape) == 4 else MODES
        if modes[key] not in known:
            raise UserError(
                f"config.normalize.per_key.{key}={modes[key]!r} is unknown; "
                f"{choices(modes[key], known)}."
            )
        if known is IMAGE_MODES:
            offset[key], scale[key] = jnp.asarray(IMAGE_MODES[modes[key]], jnp.float32)
            continue
        x = np.asarray(x, np.float64)
        center, half = MODES[modes[key]](x, quantile)
        # 2 half: one outlier gives a dim a range, and quantile still sees a constant.
        constant = np.minimum(np.ptp(x, axis=0), 2 * half) < min_range
        if fixed and key in fixed:
            center, half = np.where(fixed[key], 0.0, center), np.where(fixed[key], 1.0, half)
            constant &= ~fixed[key]
        scale[key] = jnp.asarray(np.where(constant, 1.0, half), jnp.float32)
        offset[key] = jnp.asarray(center, jnp.float32)
        said += [
            f"{key}[{d}] is constant to {min_range:g} over the training data: scale 1"
            for d in np.flatnonzero(constant)
        ]
    return Normalizer(offset, scale), said
