"""Small functions that every network of dpjax shares."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

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


def flat_dot(x: Array, kernel: Array, *_, **__) -> Array:
    """x [..., F] times kernel [F, G], all rows as one matrix.

    The gradient of a product over three axes transposes all of x before it multiplies:
    XLA's CPU took twice the time of the same rows in two axes.
    """
    return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], -1)


def torch_uniform(rng: Array, shape: tuple[int, ...], fan_in: int) -> Array:
    """U(-1/√fan_in, 1/√fan_in): torch's default for linear and convolution layers."""
    bound = fan_in**-0.5
    return jax.random.uniform(rng, shape, jnp.float32, -bound, bound)


def rerun(on: bool, block: nn.Module, x: Array, *args, **options) -> Array:
    """block(x, …); where `on`, all but x is computed again in the backward pass.

    The block is made before and keeps its name, so the tree of parameters is the same.
    """
    call = lambda block, x: block(x, *args, **options)
    return nn.remat(call)(block, x) if on else call(block, x)


class Dense(nn.Module):
    """x W + b with torch's initialization."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        fan_in = x.shape[-1]
        kernel = self.param("kernel", torch_uniform, (fan_in, self.features), fan_in)
        bias = self.param("bias", torch_uniform, (self.features,), fan_in)
        return x @ kernel + bias
