"""Attention, its block and dropout: what the transformers of dpjax are made of.

attention(q, k, v) = softmax(q kᵀ / √d) v        (Vaswani et al. 2017, eq. 1)
"""

from collections.abc import Callable
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
    """N(0, 0.02): minGPT's, for every matrix and position; its biases are 0."""
    del fan_in
    return nn.initializers.normal(0.02)(rng, shape, jnp.float32)


def dense(features: int, name: str | None = None) -> Dense:
    return Dense(features, normal, zeros, name=name)


def layer_norm(name: str | None = None) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name=name)  # torch's epsilon


def kept(key: PRNGKey, rate: float, shape: tuple[int, ...]) -> Array:
    """bool [shape], True with probability 1 - rate (to 1/65,536).

    Two 16-bit draws a word: where the words are dear, on a CPU, half of the time.
    """
    size = math.prod(shape)
    words = jax.random.bits(key, (-(-size // 2),))
    draws = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[:size]
    return draws.reshape(shape) >= round(rate * 2**16)


def dropouts(rate: float, keys: PRNGKey | None) -> Drop:
    """`drop(x [B, …]) -> x` with a fresh mask at every call; without keys [B], the identity.

    A row's mask comes from the row's key alone, so one device and eight draw the same.
    """
    if keys is None or not rate:
        return lambda x: x
    calls = itertools.count()

    def drop(x):
        call = next(calls)
        draw = lambda key: kept(jax.random.fold_in(key, call), rate, x.shape[1:])
        return jnp.where(jax.vmap(draw)(keys), x / (1 - rate), 0)

    return drop


def attention(q: Array, k: Array, v: Array, heads: int, allowed: Array | None, drop: Drop) -> Array:
    """q [B, T, E], k and v [B, M, E] -> [B, T, E], E split over the heads.

    allowed: bool [T, M], what each query may look at; None for everything.
    The softmax is taken in float32 whatever q is.
    """
    split = lambda x: x.reshape(*x.shape[:-1], heads, x.shape[-1] // heads)
    q, k, v = split(q), split(k), split(v)
    score = jnp.einsum("bthd,bmhd->bhtm", q, k).astype(jnp.float32) * q.shape[-1] ** -0.5
    if allowed is not None:
        score = jnp.where(allowed, score, -jnp.inf)
    weight = drop(jax.nn.softmax(score)).astype(v.dtype)
    mixed = jnp.einsum("bhtm,bmhd->bthd", weight, v)
    return mixed.reshape(*mixed.shape[:2], -1)


class Block(nn.Module):
    """Self-attention, cross-attention where there is a memory, feed-forward.

    Each after a norm of its own and added to what came in (pre-norm).
    """

    width: int
    heads: int
    cross: bool = False

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
        """x [B, T, E]; memory [B, M, 2 E], keys beside values, where `cross`."""
        qkv = dense(3 * self.width, "qkv")(layer_norm("norm_self")(x))
        mixed = attention(*jnp.split(qkv, 3, axis=-1), self.heads, allowed, drop)
        x = x + drop(dense(self.width, "out_self")(mixed))
        if self.cross:
            q = dense(self.width, "q")(layer_norm("norm_cross")(x))
            k, v = jnp.split(memory, 2, axis=-1)
            mixed = attention(q, k, v, self.heads, memory_allowed, drop)
            x = x + drop(dense(self.width, "out_cross")(mixed))
        h = dense(4 * self.width, "up")(layer_norm("norm_mlp")(x))
        h = drop(jax.nn.gelu(h, approximate=False))
        return x + drop(dense(self.width, "down")(h))
