"""The transformers over the action chunk of Chi et al. 2023, sec. 3.2.

The decoder has one token per action step. Its self-attention is causal; its cross-attention
attends to the memory, which is one token for the noise level and one per observed step. Action t
may attend to the noise level and to observations up to step t (action 0 to the first one only,
each later action to one more): the original's memory mask.

The encoder-only variant has one sequence: the noise level, the observed steps and the actions are
its tokens, and all attend to all.

The memory does not depend on x. Where its tokens do not attend to each other (cond_layers 0),
`prepare` computes the keys and values of all layers: the observations' once per action chunk, the
noise level's once per level.
"""

import functools

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

from dpjax.core.errors import UserError
from dpjax.core.types import Context, PRNGKey
from dpjax.nets.attention import Block, Drop, dense, dropouts, layer_norm, normal
from dpjax.nets.layers import apply_block, mish, sinusoidal

Array = jax.Array


class Transformer(nn.Module):
    """The minGPT-style denoiser; semantics of Chi et al.'s TransformerForDiffusion.

    features: Da. horizon: Tp. observed: To, 0 for none.
    layers, heads, width: of the stack; a head has width / heads channels.
    cond_layers: layers of an encoder over the memory; 0 for an MLP per token.
    causal: whether an action may attend to earlier ones only.
    encoder_only: one sequence without cross-attention.
    drop: dropout rate in and after every block, in training. drop_tokens: of the tokens.
    remat: blocks are computed again in the backward pass.
    kernels: "auto" or "xla", see `ops/kernels.py`.
    """

    features: int
    horizon: int
    observed: int
    layers: int = 8
    heads: int = 4
    width: int = 256
    cond_layers: int = 0
    causal: bool = True
    encoder_only: bool = False
    drop: float = 0.01
    drop_tokens: float = 0.0
    remat: bool = False
    kernels: str = "auto"

    def setup(self):
        linear = functools.partial(dense, kernels=self.kernels)
        block = lambda cross: Block(self.width, self.heads, cross, self.kernels)
        memory = 1 + self.observed  # tokens: the noise level and the observed steps
        tokens = self.horizon + (memory if self.encoder_only else 0)
        # The stack over the action tokens.
        self.action_in = linear(self.width)
        self.position = self.param("position", normal, (tokens, self.width))
        self.blocks = [block(not self.encoder_only) for _ in range(self.layers)]
        self.norm_out = layer_norm()
        self.action_out = linear(self.features)
        if self.observed:
            self.obs_in = linear(self.width)
        if self.encoder_only:
            return
        # The decoder's memory.
        self.memory_position = self.param("memory_position", normal, (memory, self.width))
        self.memory_kv = [linear(2 * self.width) for _ in range(self.layers)]
        if self.cond_layers:
            self.memory_blocks = [block(False) for _ in range(self.cond_layers)]
        else:
            self.memory_up = linear(4 * self.width)
            self.memory_down = linear(self.width)

    def prepare(self, cond: Array, t: Array, keys: PRNGKey | None = None) -> Context:
        """cond [B, To, F], t [...] -> Context: what of the memory does not depend on x.

        Its leaves are tokens, per_level [..., E] and shared [B, To, E]; with cond_layers 0, their
        keys and values of all layers, [..., layers, 2 E] and [B, To, layers, 2 E].
        keys: [B], for dropout; None turns it off.
        """
        chex.assert_rank(cond, 3)
        drop = dropouts(self.drop_tokens, keys)
        time = sinusoidal(t, self.width).astype(cond.dtype)
        # Without observed steps there are no tokens, whatever cond holds.
        obs = jnp.zeros((cond.shape[0], 0, self.width), cond.dtype)
        if self.observed:
            obs = self.obs_in(cond)
        if self.encoder_only:
            return Context(per_level=time, shared=obs)
        # The memory's positions, and keys and values if its tokens are ready.
        time = drop(time + self.memory_position[0])
        obs = drop(obs + self.memory_position[1:])
        if self.cond_layers:
            return Context(per_level=time, shared=obs)
        return Context(per_level=self._keys_values(time), shared=self._keys_values(obs))

    def _keys_values(self, token: Array) -> Array:
        """[..., E] -> [..., layers, 2 E], through the memory's MLP."""
        token = self.memory_down(mish(self.memory_up(token)))
        return jnp.stack([layer(token) for layer in self.memory_kv], axis=-2)

    def denoise(self, x: Array, context: Context, keys: PRNGKey | None = None) -> Array:
        """x [B, Tp, Da], context of one level or of [B] levels -> [B, Tp, Da].

        keys: [B], for dropout; None turns it off.
        """
        chex.assert_shape(x, (None, self.horizon, self.features))
        # The masks differ from those of `prepare`, which may get the same keys.
        keys = None if keys is None else jax.vmap(jax.random.fold_in, (0, None))(keys, 2**31)
        drop = dropouts(self.drop, keys)
        drop_tokens = dropouts(self.drop_tokens, keys)
        # The memory: the noise level, then the observed steps.
        obs = context.shared
        time = jnp.broadcast_to(context.per_level, (x.shape[0], *obs.shape[2:]))[:, None]
        memory = jnp.concatenate([time, obs], axis=1)  # [B, 1 + To, ...]
        # The tokens: actions, or the memory and the actions in one sequence.
        tokens = self.action_in(x)
        if self.encoder_only:
            tokens = jnp.concatenate([memory, tokens], axis=1)
        tokens = drop_tokens(tokens + self.position)
        # The stack; the encoder-only variant drops the memory's tokens at the end.
        if self.encoder_only:
            for block in self.blocks:
                tokens = apply_block(block, tokens, drop, remat=self.remat)
            tokens = tokens[:, -self.horizon :]
        else:
            tokens = self._decode(tokens, memory, drop)
        return self.action_out(self.norm_out(tokens))

    def _decode(self, tokens: Array, memory: Array, drop: Drop) -> Array:
        """tokens [B, Tp, E] with cross-attention to the memory [B, 1 + To, ...]: [B, Tp, E]."""
        # Memory tokens that attend to each other get their keys and values only now.
        if self.cond_layers:
            for block in self.memory_blocks:
                memory = apply_block(block, memory, drop, remat=self.remat)
            memory = jnp.stack([layer(memory) for layer in self.memory_kv], axis=-2)
        masks = self._masks()
        for i, block in enumerate(self.blocks):
            tokens = apply_block(
                block, tokens, drop, remat=self.remat, memory=memory[:, :, i], **masks
            )
        return tokens

    def _masks(self) -> dict[str, Array]:
        """Which actions [Tp, Tp] and which memory [Tp, 1 + To] an action may attend to."""
        if not self.causal:
            return {}
        # Memory 0 is the noise level, memory i + 1 observation i.
        t = jnp.arange(self.horizon)[:, None]
        memory = jnp.arange(1 + self.observed)
        return dict(allowed=t >= t.T, memory_allowed=t >= memory - 1)

    def __call__(self, x: Array, t: Array, cond: Array) -> Array:
        """x [B, Tp, Da], t [B], cond [B, To, F] -> [B, Tp, Da]."""
        return self.denoise(x, self.prepare(cond, t))


def check_sizes(width: int, heads: int) -> None:
    """Raises UserError for a width that the heads cannot split."""
    if width < 4 or heads < 1 or width % (2 * heads):
        raise UserError(
            f"width={width} must be an even multiple of heads={heads}.", argument="width"
        )
