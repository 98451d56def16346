"""Small functions and layers that several networks share."""

from collections.abc import Callable
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dpjax.core.types import PRNGKey
from dpjax.ops.conv1d import conv, upsample
from dpjax.ops.group_norm import group_norm
from dpjax.ops.transposed import dense, kernel_param

Array = jax.Array


def mish(x: Array) -> Array:
    """x tanh(softplus(x)) (Misra 2020), with one exponential instead of three.

    tanh(log(1 + e)) = n / (n + 2) with n = e (e + 2) and e = exp(x).
    """
    # Above x = 20 the factor is 1 in float32; without the bound n would overflow.
    e = jnp.exp(jnp.minimum(x, 20.0))
    n = e * (e + 2)
    return x * (n / (n + 2))


def sinusoidal(t: Array, size: int) -> Array:
    """Embedding of t [...] -> [..., size]: sines, then cosines, of log-spaced frequencies.

    Vaswani et al. 2017 with the last frequency at 1/10000 exactly, as in Chi et al. 2023.
    """
    # From 1 down to 1/10000, evenly spaced in the logarithm.
    half = size // 2
    frequency = np.exp(-np.log(10000.0) / (half - 1) * np.arange(half)).astype(np.float32)
    angle = t[..., None].astype(jnp.float32) * frequency
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def torch_uniform(rng: PRNGKey, shape: tuple[int, ...], fan_in: int) -> Array:
    """U(-1/√fan_in, 1/√fan_in): torch's default for linear and convolution layers."""
    bound = fan_in**-0.5
    return jax.random.uniform(rng, shape, jnp.float32, -bound, bound)


def zeros(rng: PRNGKey, shape: tuple[int, ...], fan_in: int) -> Array:
    """Initializer of Dense: for the biases of transformers, and for gates that start closed."""
    del rng, fan_in
    return jnp.zeros(shape, jnp.float32)


def apply_block(block: nn.Module, x: Array, *args: Any, remat: bool, **options: Any) -> Array:
    """block(x, *args, **options).

    remat: the block's activations are computed again in the backward pass, not stored. The
        block exists before and keeps its name, so the tree of parameters is the same.
    """
    # Only x is an input of what is computed again; args and options are closed over.
    call = lambda block, x: block(x, *args, **options)
    return nn.remat(call)(block, x) if remat else call(block, x)


class Dense(nn.Module):
    """x W + b, or x W without `use_bias`.

    kernel_init, bias_init: `(rng, shape, fan_in) -> Array`; torch's by default.
    """

    features: int
    kernel_init: Callable = torch_uniform
    bias_init: Callable = torch_uniform
    use_bias: bool = True
    kernels: str = "auto"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        # "kernel", or "transposed" in params for sampling on a CPU.
        fan_in = x.shape[-1]
        kernel = kernel_param(self, self.kernel_init, (fan_in, self.features), fan_in)
        y = dense(x, kernel, kernels=self.kernels)
        if not self.use_bias:
            return y
        return y + self.param("bias", self.bias_init, (self.features,), fan_in)


class Conv1D(nn.Module):
    """Convolution along time with bias; it keeps the length at stride 1, halves it at 2."""

    features: int
    size: int
    stride: int = 1
    kernels: str = "auto"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        fan_in = self.size * x.shape[-1]
        shape = (self.size, x.shape[-1], self.features)
        kernel = kernel_param(self, torch_uniform, shape, fan_in)
        bias = self.param("bias", torch_uniform, (self.features,), fan_in)
        padding = self.size // 2  # symmetric, as in torch
        return conv(x, kernel, stride=self.stride, padding=padding, kernels=self.kernels) + bias


class Upsample1D(nn.Module):
    """Transposed convolution with bias, kernel 4 and stride 2: twice as many steps."""

    features: int
    kernels: str = "auto"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        fan_in = 4 * self.features  # as torch counts it for transposed convolutions
        kernel = kernel_param(self, torch_uniform, (4, x.shape[-1], self.features), fan_in)
        bias = self.param("bias", torch_uniform, (self.features,), fan_in)
        return upsample(x, kernel, kernels=self.kernels) + bias


def scale_and_bias(module: nn.Module, channels: int, prefix: str = "") -> tuple[Array, Array]:
    """The parameters of a norm inside `module`: "scale" and "bias", [channels] each."""
    scale = module.param(f"{prefix}scale", nn.initializers.ones, (channels,))
    bias = module.param(f"{prefix}bias", nn.initializers.zeros, (channels,))
    return scale, bias


class GroupNorm(nn.Module):
    """GroupNorm (Wu & He 2018) with a scale and a bias per channel."""

    groups: int
    kernels: str = "auto"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        scale, bias = scale_and_bias(self, x.shape[-1])
        return group_norm(x, scale, bias, self.groups, kernels=self.kernels)


class FrozenNorm(nn.Module):
    """A BatchNorm with fixed statistics: y = scale x + bias, neither of them trained."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        # The optimizer leaves parameters with this prefix alone.
        scale, bias = scale_and_bias(self, x.shape[-1], "frozen_")
        return x * jax.lax.stop_gradient(scale) + jax.lax.stop_gradient(bias)
