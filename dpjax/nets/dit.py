"""A transformer that the noise level and the observation modulate: adaLN-Zero (DiT).

Peebles & Xie 2023, for actions: Dasari et al. 2024 (DiT-Policy). Each half of a block is

    x + gate(c) f(norm(x) (1 + scale(c)) + shift(c)),                       (1)

where gate, scale and shift are linear in c and 0 at first, so that every block starts as the
identity: it trains more stably than with cross-attention. Here c = [SiLU(time);
SiLU(observation)], and SiLU acts element by element, so (1) splits as in `unet1d`: the
observation's half is computed once per action chunk, the time's half once per noise level.
(Dasari et al. encode the observations by a transformer of its own; here it is an MLP.)
"""

import functools

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

from dpjax.core.types import Context, PRNGKey
from dpjax.nets.attention import Drop, attention, dense, dropouts, normal
from dpjax.nets.layers import Dense, apply_block, sinusoidal, zeros

Array = jax.Array


def bare_norm(name: str) -> nn.LayerNorm:
    """LayerNorm without a scale and a bias of its own: (1) supplies them."""
    return nn.LayerNorm(
        epsilon=1e-6, use_scale=False, use_bias=False, use_fast_variance=False, name=name
    )


class Block(nn.Module):
    """Equation (1) with self-attention, then with an MLP."""

    width: int
    heads: int
    kernels: str = "auto"

    @nn.compact
    def __call__(self, x: Array, modulation: Array, drop: Drop) -> Array:
        """x [B, Tp, E], modulation [B, 6 E] -> [B, Tp, E]."""
        linear = functools.partial(dense, kernels=self.kernels)
        # Two halves of three, [B, 1, E] each: the same for all steps.
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = jnp.split(
            modulation[:, None], 6, axis=-1
        )
        # Self-attention.
        h = bare_norm("norm_self")(x) * (1 + scale) + shift
        q, k, v = jnp.split(linear(3 * self.width, name="qkv")(h), 3, axis=-1)
        h = linear(self.width, name="out_self")(attention(q, k, v, self.heads, None, drop))
        x = x + gate * drop(h)
        # MLP.
        h = bare_norm("norm_mlp")(x) * (1 + scale_mlp) + shift_mlp
        h = drop(jax.nn.gelu(linear(4 * self.width, name="up")(h)))
        return x + gate_mlp * drop(linear(self.width, name="down")(h))


class DiT(nn.Module):
    """The adaLN-Zero denoiser.

    features: Da. horizon: Tp. layers, heads, width: of the stack.
    drop: dropout rate in and after every block, in training.
    remat: blocks are computed again in the backward pass.
    kernels: "auto" or "xla", see `ops/kernels.py`.
    """

    features: int
    horizon: int
    layers: int = 6
    heads: int = 4
    width: int = 256
    drop: float = 0.0
    remat: bool = False
    kernels: str = "auto"

    def setup(self):
        linear = functools.partial(dense, kernels=self.kernels)
        self.action_in = linear(self.width)
        self.position = self.param("position", normal, (self.horizon, self.width))
        # The MLPs of the noise level and of the observation.
        self.time_in = linear(self.width)
        self.time_out = linear(self.width)
        self.obs_in = linear(self.width)
        self.obs_out = linear(self.width)
        # The modulations of all blocks side by side, then shift and scale of the last norm.
        size = (6 * self.layers + 2) * self.width
        self.modulate_time = Dense(size, zeros, zeros, kernels=self.kernels)
        self.modulate_obs = Dense(size, zeros, use_bias=False, kernels=self.kernels)
        self.blocks = [Block(self.width, self.heads, self.kernels) for _ in range(self.layers)]
        self.norm_out = bare_norm("norm_out")
        self.action_out = Dense(self.features, zeros, zeros, kernels=self.kernels)

    def prepare(self, cond: Array, t: Array, keys: PRNGKey | None = None) -> Context:
        """cond [B, To, F], t [...] -> the modulations M of all blocks, [..., M] and [B, M]."""
        del keys  # dropout is in the blocks only
        chex.assert_rank(cond, 3)
        # c in its two halves.
        waves = sinusoidal(t, self.width).astype(cond.dtype)
        time = self.time_out(jax.nn.silu(self.time_in(waves)))
        obs = self.obs_out(jax.nn.silu(self.obs_in(cond.reshape(cond.shape[0], -1))))
        # All that is linear in c.
        per_level = self.modulate_time(jax.nn.silu(time))
        return Context(per_level=per_level, shared=self.modulate_obs(jax.nn.silu(obs)))

    def denoise(self, x: Array, context: Context, keys: PRNGKey | None = None) -> Array:
        """x [B, Tp, Da], context.per_level [M] or [B, M] -> [B, Tp, Da].

        keys: [B], for dropout; None turns it off.
        """
        chex.assert_shape(x, (None, self.horizon, self.features))
        drop = dropouts(self.drop, keys)
        modulation = context.per_level + context.shared
        tokens = self.action_in(x) + self.position
        size = 6 * self.width  # of one block's modulation
        for i, block in enumerate(self.blocks):
            part = modulation[:, i * size : (i + 1) * size]
            tokens = apply_block(block, tokens, part, drop, remat=self.remat)
        # The last norm is modulated too; it has no gate.
        shift, scale = jnp.split(modulation[:, None, -2 * self.width :], 2, axis=-1)
        return self.action_out(self.norm_out(tokens) * (1 + scale) + shift)

    def __call__(self, x: Array, t: Array, cond: Array) -> Array:
        """x [B, Tp, Da], t [B], cond [B, To, F] -> [B, Tp, Da]."""
        return self.denoise(x, self.prepare(cond, t))
