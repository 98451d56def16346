"""Group normalization (Wu & He 2018), along time and in images, channels last."""

import jax
from jax import lax
import jax.numpy as jnp

from dpjax.ops.kernels import is_fast

Array = jax.Array

EPSILON = 1e-5  # torch's


def group_norm(x: Array, scale: Array, bias: Array, groups: int, *, kernels: str = "auto") -> Array:
    """y = scale (x - mean) / sqrt(var + 1e-5) + bias, in x's dtype.

    x [B, ..., C]; mean and variance [B, groups] are those of all steps or pixels and of the
    group's channels. scale, bias: [C].
    """
    form = group_norm_fast if is_fast(kernels) else group_norm_xla
    # Whatever x is, the arithmetic is float32's: a variance of few bits moves every channel.
    return form(x.astype(jnp.float32), scale, bias, groups).astype(x.dtype)


def group_norm_xla(x: Array, scale: Array, bias: Array, groups: int) -> Array:
    """`group_norm` as it is defined: channels [C] seen as [groups, C / groups]."""
    # [B, ..., groups, channels per group]
    grouped = x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
    # Statistics over steps or pixels, and over the channels of a group.
    axes = (*range(1, x.ndim - 1), -1)
    centered = grouped - jnp.mean(grouped, axes, keepdims=True)
    variance = jnp.mean(centered * centered, axes, keepdims=True)
    normalized = centered * lax.rsqrt(variance + EPSILON)
    return normalized.reshape(x.shape) * scale + bias


def group_norm_fast(x: Array, scale: Array, bias: Array, groups: int) -> Array:
    """`group_norm` with statistics that a CPU vectorizes."""
    # Each mean is taken in two steps: over the steps or pixels, a long loop over the channels,
    # and then over a group's few channels. Statistics have the shape [B, C], not [B, 1, C]:
    # XLA's CPU backend sums the gradient of the scale over three axes, one of them of size 1,
    # in 99 µs, and over two axes in 6.
    batch, channels = x.shape[0], x.shape[-1]
    group_shape = (batch, groups, channels // groups)
    axes = tuple(range(1, x.ndim - 1))  # of the steps or pixels

    def mean(y: Array) -> Array:
        """[B, ..., C] -> [B, groups, 1]."""
        channel_means = jnp.mean(y, axis=axes).reshape(group_shape)
        return jnp.mean(channel_means, axis=-1, keepdims=True)

    def per_channel(statistic: Array) -> Array:
        """[B, groups, 1] -> [B, C]."""
        return jnp.broadcast_to(statistic, group_shape).reshape(batch, channels)

    # x is centered once, for the variance and for the result.
    centered = x - jnp.expand_dims(per_channel(mean(x)), axes)
    # Deviation and scale become one factor, so that x is multiplied once.
    factor = per_channel(lax.rsqrt(mean(centered * centered) + EPSILON)) * scale
    return centered * jnp.expand_dims(factor, axes) + bias
