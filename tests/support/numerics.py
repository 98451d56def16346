"""Random arrays, and the comparison of two forms of one function."""

import jax
import jax.numpy as jnp
import numpy as np


def normal(seed: int, *shape: int) -> jax.Array:
    """N(0, 1) in float32."""
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def with_gradients(f, *args):
    """f's value, and the gradients of a loss of it in all arguments."""

    def loss(*args):
        y = f(*args)
        return jnp.sum(jnp.sin(y)), y

    grads, y = jax.jit(jax.grad(loss, argnums=range(len(args)), has_aux=True))(*args)
    return y, *grads


def assert_same_function(f, g, *args, atol=1e-5):
    """Two functions agree at these arguments, in value and gradients."""
    for got, want in zip(with_gradients(f, *args), with_gradients(g, *args), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=atol)
