"""Affine maps between data units and network units.

    x̂ = (x - offset) / scale                                                (1)

There is one pair (offset, scale) per key and dimension, fitted to the training data by
`core.scaling`. The pairs are part of `Params` and therefore of every checkpoint: a policy is always
loaded together with the units that it was trained in. A scale of 0 marks a constant: it is 0 to the
network, and comes back as its offset exactly.
"""

from collections.abc import Callable, Mapping
import logging

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from dpjax.core import scaling
from dpjax.core.dims import describe_dims
from dpjax.core.errors import UserError, choices
from dpjax.core.scaling import MODES, Scaling
from dpjax.core.types import ACTION

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
            key: to_network(
                jnp.asarray(x, jnp.float32),
                _broadcast(self.offset, key, x),
                _broadcast(self.scale, key, x),
            )
            for key, x in tree.items()
        }

    def restore(self, key: str, x: Array) -> Array:
        """[..., D] of one key from network units back to data units."""
        offset = _broadcast(self.offset, key, x)
        scale = _broadcast(self.scale, key, x)
        # Not x * 0 + offset, which is NaN where the network's output is infinite.
        return jnp.where(scale == 0, offset, x * scale + offset)


def to_network(x: Array, offset: Array, scale: Array) -> Array:
    """Equation (1), for numpy and for jax arrays; 0 for a constant, whose scale is 0."""
    array = np if isinstance(scale, np.ndarray) else jnp
    # Divided by infinity a number is 0, but NaN stays NaN: the unknown steps of a previous action
    # chunk stay unknown.
    return (x - offset) / array.where(scale == 0, np.inf, scale)


def _broadcast(table: Mapping[str, Array], key: str, x: Array) -> Array:
    """table[key] [D] with as many axes as x, so that it broadcasts to x [..., D]."""
    if key not in table:
        raise UserError(f"normalizer: no statistics for {key!r}; {choices(key, table)}.")
    leaf = table[key]  # [D]
    return jnp.reshape(leaf, (1,) * (x.ndim - leaf.ndim) + leaf.shape)  # [1, …, 1, D]


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
    min_range: float = 0.0,
    fixed: Mapping[str, np.ndarray] | None = None,
    warn: Callable[[str], None] = log.warning,
) -> Normalizer:
    """Fits a normalizer to `columns` {key: [N, D]}.

    modes: {key: name in MODES}, one for every column; for images [N, H, W, 3] a name in
        IMAGE_MODES.
    quantile: the share of the data beyond each limit in mode "quantile".
    min_range: 0 for the relative rules of `core.scaling`; above 0 a dim with a smaller range (in
        data units) is constant, and all others are scaled by their own range.
    fixed: {key: bool [D]} dims that keep their units whatever the mode (rotations).
    warn: takes a line about each column with dims that are constant or move little.

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
        # 2. Numbers. What is not scaled by its own range may be a recording fault: it is said.
        measured = scaling.measure(
            x,
            modes[key],
            is_action=key == ACTION,
            quantile=quantile,
            min_range=min_range,
            fixed=(fixed or {}).get(key),
        )
        offset[key] = jnp.asarray(measured.offset, jnp.float32)
        scale[key] = jnp.asarray(measured.scale, jnp.float32)
        for line in describe(key, measured):
            warn(line)
    return Normalizer(offset, scale)


def describe(key: str, measured: Scaling) -> list[str]:
    """A line about the constant dims of a column, and one about those that move little."""
    is_action = key == ACTION
    lines = []
    for flags, text in (
        (measured.constant, CONSTANT_ACTION if is_action else CONSTANT_OBSERVATION),
        (measured.flat, FLAT_ACTION if is_action else FLAT_OBSERVATION),
        (measured.little, LITTLE_ACTION if is_action else LITTLE_OBSERVATION),
    ):
        if flags.any():
            ranges = measured.ranges[flags]
            values = dict(
                dims=describe_dims(key, np.flatnonzero(flags).tolist()),
                most=ranges.max(),
                # What to set, rounded to one digit: above all of these ranges, or below them.
                above=float(f"{2 * ranges.max():.0e}"),
                below=float(f"{ranges.min() / 2:.0e}"),
            )
            lines.append(text.format(**values))
    return lines


# What `fit` says of dims that are not simply scaled by their own range.
CONSTANT_ACTION = "{dims} is constant over the training data: the policy returns it exactly"
CONSTANT_OBSERVATION = "{dims} is constant over the training data"
FLAT_ACTION = (
    "{dims} is equal at both quantiles although it moves by {most:.3g}: scaled by its whole range"
)
FLAT_OBSERVATION = (
    "{dims} is equal at both quantiles although it moves by {most:.3g}: scaled by the largest "
    "range of its column"
)
LITTLE_ACTION = (
    "{dims} moves little, by {most:.3g} at most: scaled by its own range, so that it is learned; "
    "set min_range={above:g} to keep it constant"
)
LITTLE_OBSERVATION = (
    "{dims} moves little, by {most:.3g} at most: scaled by the largest range of its column, so "
    "that noise stays small; set min_range={below:g} to scale it by its own range"
)


def _check_mode(key: str, mode: str, *, is_image: bool) -> None:
    """Raises UserError unless `mode` exists for images, or for columns of numbers."""
    allowed = IMAGE_MODES if is_image else MODES
    if mode not in allowed:
        raise UserError(
            f"modes.{key}={mode!r} is unknown; {choices(mode, allowed)}.",
            argument=f"modes.{key}",
        )
