"""A transformer that the noise level and the observation modulate: adaLN-Zero (DiT).

Peebles & Xie 2023, for actions: Dasari et al. 2024 (DiT-Policy). Each half of a block is

    x + gate(c) f(norm(x) (1 + scale(c)) + shift(c)),                       (1)

all three linear in c and 0 at first, so that every block begins as the identity: which is
why it trains more stably than cross-attention. Here c = [SiLU(time); SiLU(observation)],
and SiLU acts element by element, so that (1) comes apart as in `unet1d`: the observation's
half once a plan, the noise level's once a sampling step, and only what x feeds is left.
(Dasari et al. encode the observations by a transformer of its own; here it is an MLP.)
"""

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

from dpjax.core.types import Context, PRNGKey
from dpjax.nets.attention import Drop, attention, dense, dropouts, normal
from dpjax.nets.layers import Dense, rerun, sinusoidal, zeros

Array = jax.Array


def bare_norm(name: str) -> nn.LayerNorm:
    """LayerNorm without scale and bias of its own: (1) brings them."""
    return nn.LayerNorm(
        epsilon=1e-6, use_scale=False, use_bias=False, use_fast_variance=False, name=name
    )


class Block(nn.Module):
    """Equation (1) with self-attention, then with an MLP."""

    width: int
    heads: int

    @nn.compact
    def __call__(self, x: Array, modulation: Array, drop: Drop) -> Array:
        """x [B, Tp, E], modulation [B, 6 E]."""
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = jnp.split(
            modulation[:, None], 6, axis=-1
        )
        h = bare_norm("norm_self")(x) * (1 + scale) + shift
        q, k, v = jnp.split(dense(3 * self.width, "qkv")(h), 3, axis=-1)
        h = dense(self.width, "out_self")(attention(q, k, v, self.heads, None, drop))
        x = x + gate * drop(h)
        h = bare_norm("norm_mlp")(x) * (1 + scale_mlp) + shift_mlp
        h = drop(jax.nn.gelu(dense(4 * self.width, "up")(h)))
        return x + gate_mlp * drop(dense(self.width, "down")(h))


class DiT(nn.Module):
    """The adaLN-Zero denoiser.

    features: Da. horizon: Tp. layers, heads, width: of the stack.
    drop: dropout in and after every block, in training.
    remat: blocks are computed again in the backward pass.
    """

    features: int
    horizon: int
    layers: int = 6
    heads: int = 4
    width: int = 256
    drop: float = 0.0
    remat: bool = False

    def setup(self):
        self.action_in = dense(self.width)
        self.position = self.param("position", normal, (self.horizon, self.width))
        self.time_in, self.time_out = dense(self.width), dense(self.width)
        self.obs_in, self.obs_out = dense(self.width), dense(self.width)
        size = (6 * self.layers + 2) * self.width
        self.modulate_time = Dense(size, zeros, zeros)
        self.modulate_obs = Dense(size, zeros, use_bias=False)
        self.blocks = [Block(self.width, self.heads) for _ in range(self.layers)]
        self.norm_out = bare_norm("norm_out")
        self.action_out = Dense(self.features, zeros, zeros)

    def prepare(self, cond: Array, t: Array, keys: PRNGKey | None = None) -> Context:
        """cond [B, To, F], t [...] -> Context of all blocks' modulations, [..., M] and [B, M]."""
        del keys  # dropout is in the blocks only
        chex.assert_rank(cond, 3)
        waves = sinusoidal(t, self.width).astype(cond.dtype)
        time = self.time_out(jax.nn.silu(self.time_in(waves)))
        obs = self.obs_out(jax.nn.silu(self.obs_in(cond.reshape(cond.shape[0], -1))))
        step = self.modulate_time(jax.nn.silu(time))
        return Context(per_level=step, shared=self.modulate_obs(jax.nn.silu(obs)))

    def denoise(self, x: Array, context: Context, keys: PRNGKey | None = None) -> Array:
        """x [B, Tp, Da], context.per_level [M] or [B, M] -> [B, Tp, Da]. keys [B]: dropout is on."""
        chex.assert_shape(x, (None, self.horizon, self.features))
        drop, width = dropouts(self.drop, keys), self.width
        modulation = context.per_level + context.shared
        tokens = self.action_in(x) + self.position
        for i, block in enumerate(self.blocks):
            own = modulation[:, 6 * i * width : 6 * (i + 1) * width]
            tokens = rerun(self.remat, block, tokens, own, drop)
        shift, scale = jnp.split(modulation[:, None, -2 * width :], 2, axis=-1)
        return self.action_out(self.norm_out(tokens) * (1 + scale) + shift)

    def __call__(self, x: Array, t: Array, cond: Array) -> Array:
        """x [B, Tp, Da], t [B], cond [B, To, F] -> [B, Tp, Da]."""
        return self.denoise(x, self.prepare(cond, t))
