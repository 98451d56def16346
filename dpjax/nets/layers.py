"""Small functions that every network of dpjax shares.

GroupNorm (Wu & He 2018), along time and in images, and a BatchNorm that stands still.
"""

from collections.abc import Callable

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dpjax.ops.transposed import dot, weights

Array = jax.Array


def mish(x: Array) -> Array:
    """x tanh(softplus(x)) (Misra 2020), with one exponential instead of three.

    tanh(log(1 + e)) = n / (n + 2) with n = e (e + 2), e = exp(x); above x = 20 the
    factor is 1 in float32.
    """
    e = jnp.exp(jnp.minimum(x, 20.0))
    n = e * (e + 2)
    return x * (n / (n + 2))


def sinusoidal(t: Array, size: int) -> Array:
    """[...] -> [..., size]: sines, then cosines, of log-spaced frequencies.

    Vaswani et al. 2017 with the last frequency at 1/10000 exactly, as in Chi et al.
    """
    half = size // 2
    frequency = np.exp(-np.log(10000.0) / (half - 1) * np.arange(half)).astype(np.float32)
    angle = t[..., None].astype(jnp.float32) * frequency
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def torch_uniform(rng: Array, shape: tuple[int, ...], fan_in: int) -> Array:
    """U(-1/√fan_in, 1/√fan_in): torch's default for linear and convolution layers."""
    bound = fan_in**-0.5
    return jax.random.uniform(rng, shape, jnp.float32, -bound, bound)


def zeros(rng: Array, shape: tuple[int, ...], fan_in: int) -> Array:
    """Of Dense: for the biases of transformers, and for gates that begin shut."""
    del rng, fan_in
    return jnp.zeros(shape, jnp.float32)


def rerun(on: bool, block: nn.Module, x: Array, *args, **options) -> Array:
    """block(x, …); where `on`, all but x is computed again in the backward pass.

    The block is made before and keeps its name, so the tree of parameters is the same.
    """
    call = lambda block, x: block(x, *args, **options)
    return nn.remat(call)(block, x) if on else call(block, x)


class Dense(nn.Module):
    """x W + b, or x W without `use_bias`; W may be turned (`rows`).

    kernel_init, bias_init: `(rng, shape, fan_in) -> Array`; by default torch's.
    """

    features: int
    kernel_init: Callable = torch_uniform
    bias_init: Callable = torch_uniform
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: Array) -> Array:
        fan_in = x.shape[-1]
        y = dot(x, weights(self, self.kernel_init, (fan_in, self.features), fan_in))
        if not self.use_bias:
            return y
        return y + self.param("bias", self.bias_init, (self.features,), fan_in)


Array = jax.Array


def group_norm(x: Array, scale: Array, bias: Array, groups: int) -> Array:
    """GroupNorm over x [B, ..., C]: statistics over all steps or pixels and a group's channels.

    Two means, channels last: a CPU vectorizes the long one over the channels. They are
    [B, C], for over an axis of one XLA's CPU sums the scale's gradient in 99 instead of 6 µs;
    and x is centered once, which flax's module does in two shapes (1.3 to 1.6 times the time).
    Whatever x is, the arithmetic is float32's: a variance of few bits would move every channel.
    """
    batch, channels = x.shape[0], x.shape[-1]
    shape, axes = (batch, groups, channels // groups), tuple(range(1, x.ndim - 1))
    dtype, x = x.dtype, x.astype(jnp.float32)

    mean = lambda y: jnp.mean(jnp.mean(y, axis=axes).reshape(shape), axis=-1, keepdims=True)
    spread = lambda y: jnp.broadcast_to(y, shape).reshape(batch, channels)
    everywhere = lambda y: jnp.expand_dims(y, axes)
    centered = x - everywhere(spread(mean(x)))
    factor = spread(jax.lax.rsqrt(mean(centered * centered) + 1e-5)) * scale
    return (centered * everywhere(factor) + bias).astype(dtype)


def scale_and_bias(module: nn.Module, channels: int, prefix: str = "") -> tuple[Array, Array]:
    """A norm's parameters, [channels] each, of the module that asks for them."""
    scale = module.param(f"{prefix}scale", nn.initializers.ones, (channels,))
    return scale, module.param(f"{prefix}bias", nn.initializers.zeros, (channels,))


class GroupNorm(nn.Module):
    """`group_norm` with a scale and a bias a channel."""

    groups: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return group_norm(x, *scale_and_bias(self, x.shape[-1]), self.groups)


class FrozenNorm(nn.Module):
    """A BatchNorm with fixed statistics: y = scale x + bias, neither of them trained."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale, bias = scale_and_bias(self, x.shape[-1], "frozen_")
        return x * jax.lax.stop_gradient(scale) + jax.lax.stop_gradient(bias)
