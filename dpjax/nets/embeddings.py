"""Small functions that every network of dpjax shares."""

from collections.abc import Callable

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dpjax.nets.rows import dot, weights

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
