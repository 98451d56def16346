"""Attention, its block and dropout: the parts of the transformers.

attention(q, k, v) = softmax(q kᵀ / √d) v        (Vaswani et al. 2017, eq. 1)
"""

from collections.abc import Callable
import functools
import itertools
import math

from flax import linen as nn
import jax
import jax.numpy as jnp

from dpjax.core.types import PRNGKey
from dpjax.nets.layers import Dense, zeros

Array = jax.Array
Drop = Callable[[Array], Array]


def normal(rng: PRNGKey, shape: tuple[int, ...], fan_in: int = 0) -> Array:
    """N(0, 0.02²): minGPT's initializer of matrices and positions; its biases are 0."""
    del fan_in
    return nn.initializers.normal(0.02)(rng, shape, jnp.float32)


def dense(features: int, *, kernels: str = "auto", name: str | None = None) -> Dense:
    """A dense layer with minGPT's initializers."""
    return Dense(features, normal, zeros, kernels=kernels, name=name)


def layer_norm(name: str | None = None) -> nn.LayerNorm:
    """LayerNorm with torch's epsilon."""
    return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name=name)


def keep_mask(key: PRNGKey, rate: float, shape: tuple[int, ...]) -> Array:
    """bool [shape], True with probability 1 - rate (to 1/65,536)."""
    # Two 16-bit draws per random word: drawing words takes the time, on a CPU.
    size = math.prod(shape)
    words = jax.random.bits(key, (-(-size // 2),))
    draws = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[:size]
    return draws.reshape(shape) >= round(rate * 2**16)


def dropouts(rate: float, keys: PRNGKey | None) -> Drop:
    """`drop(x [B, …]) -> x`, with a new mask at every call.

    keys: [B], one per example; None turns dropout off. The mask of an example depends on its key
        alone, so one device and eight draw the same masks.
    """
    if keys is None or not rate:
        return lambda x: x
    # The number of the call is folded into the keys: no two calls draw the same mask.
    calls = itertools.count()

    def drop(x: Array) -> Array:
        call = next(calls)
        mask = lambda key: keep_mask(jax.random.fold_in(key, call), rate, x.shape[1:])
        return jnp.where(jax.vmap(mask)(keys), x / (1 - rate), 0)

    return drop


def attention(q: Array, k: Array, v: Array, heads: int, allowed: Array | None, drop: Drop) -> Array:
    """q [B, T, E], k and v [B, M, E] -> [B, T, E], where E is split over the heads.

    allowed: bool [T, M], what each query may attend to; None for everything.
    The softmax is computed in float32 whatever q is.
    """
    # [B, T, heads, E / heads]
    split = lambda x: x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)
    q, k, v = split(q), split(k), split(v)
    # Scores [B, heads, T, M] and what each query attends to.
    score = jnp.einsum("bthd,bmhd->bhtm", q, k).astype(jnp.float32) * q.shape[-1] ** -0.5
    if allowed is not None:
        score = jnp.where(allowed, score, -jnp.inf)
    weight = drop(jax.nn.softmax(score)).astype(v.dtype)
    # The heads side by side again.
    mixed = jnp.einsum("bhtm,bmhd->bthd", weight, v)
    return mixed.reshape(*mixed.shape[:2], -1)


class Block(nn.Module):
    """Self-attention, cross-attention if `cross`, and an MLP.

    Each comes after its own LayerNorm and is added to its input (pre-norm).
    """

    width: int
    heads: int
    cross: bool = False
    kernels: str = "auto"

    @nn.compact
    def __call__(
        self,
        x: Array,
        drop: Drop,
        *,
        allowed: Array | None = None,
        memory: Array | None = None,
        memory_allowed: Array | None = None,
    ) -> Array:
        """x [B, T, E] -> [B, T, E].

        memory: [B, M, 2 E], keys and values side by side, if `cross`.
        allowed: bool [T, T], memory_allowed: bool [T, M]; None for everything.
        """
        linear = functools.partial(dense, kernels=self.kernels)
        # Self-attention.
        qkv = linear(3 * self.width, name="qkv")(layer_norm("norm_self")(x))
        mixed = attention(*jnp.split(qkv, 3, axis=-1), self.heads, allowed, drop)
        x = x + drop(linear(self.width, name="out_self")(mixed))
        # Cross-attention to the memory.
        if self.cross:
            q = linear(self.width, name="q")(layer_norm("norm_cross")(x))
            k, v = jnp.split(memory, 2, axis=-1)
            mixed = attention(q, k, v, self.heads, memory_allowed, drop)
            x = x + drop(linear(self.width, name="out_cross")(mixed))
        # MLP.
        h = linear(4 * self.width, name="up")(layer_norm("norm_mlp")(x))
        h = drop(jax.nn.gelu(h, approximate=False))
        return x + drop(linear(self.width, name="down")(h))
