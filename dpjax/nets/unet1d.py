"""The 1-D U-Net over the action chunk, modulated by the observation (FiLM).

Chi et al. 2023, fig. 3b: convolutions along time; the noise level and the observation enter
every block as a scale and a bias per channel (Perez et al. 2018),

    h = scale(c) h + bias(c),    c = Mish([time embedding; observation]).   (1)

scale and bias are linear in c, and Mish acts element by element, so W c = W_t Mish(t) +
W_o Mish(o). Nothing in it depends on x: `prepare` computes the observation's half once per
action chunk and the time's half once per noise level, for all blocks at once. The sampling loop
holds `denoise` alone.
"""

import functools

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

from dpjax.core.errors import UserError
from dpjax.core.types import Context, PRNGKey
from dpjax.nets.layers import (
    Conv1D,
    Dense,
    Upsample1D,
    apply_block,
    mish,
    scale_and_bias,
    sinusoidal,
    torch_uniform,
)
from dpjax.ops.group_norm import group_norm

Array = jax.Array

LAST_GROUPS = 8  # of the last block's GroupNorm, whatever `groups` is (Chi et al. 2023, code)


class ConvBlock(nn.Module):
    """Convolution, GroupNorm, Mish."""

    features: int
    size: int
    groups: int
    kernels: str = "auto"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = Conv1D(self.features, self.size, kernels=self.kernels, name="conv")(x)
        scale, bias = scale_and_bias(self, self.features)
        return mish(group_norm(x, scale, bias, self.groups, kernels=self.kernels))


class ResBlock(nn.Module):
    """Two convolution blocks with the modulation (1) between them, and a shortcut."""

    features: int
    size: int
    groups: int
    film_scale: bool
    kernels: str = "auto"

    @nn.compact
    def __call__(self, x: Array, film: Array) -> Array:
        """x [B, L, C], film [B, 2 D] (scale, then bias) or [B, D] (bias) -> [B, L, D]."""
        block = functools.partial(
            ConvBlock, self.features, self.size, self.groups, kernels=self.kernels
        )
        film = film[:, None, :]  # the same for all steps
        # First block, then the modulation (1).
        h = block(name="block0")(x)
        if self.film_scale:
            h = film[..., : self.features] * h + film[..., self.features :]
        else:
            h = h + film
        # Second block, and a shortcut that changes the number of channels if it has to.
        h = block(name="block1")(h)
        if x.shape[-1] != self.features:
            x = Conv1D(self.features, 1, kernels=self.kernels, name="shortcut")(x)
        return h + x


class Film(nn.Module):
    """The linear layers of all blocks' modulations side by side, W_t and W_o apart."""

    features: int

    @nn.compact
    def __call__(self, time: Array, obs: Array) -> Context:
        """time [..., D], obs [B, To F], both after Mish -> per_level [..., M], shared [B, M]."""
        # Initialized as one layer over [time; observation].
        fan_in = time.shape[-1] + obs.shape[-1]
        init = lambda rng, inputs: torch_uniform(rng, (inputs, self.features), fan_in)
        bias = self.param("bias", torch_uniform, (self.features,), fan_in)
        w_time = self.param("time", init, time.shape[-1])
        w_obs = self.param("obs", init, obs.shape[-1])
        return Context(per_level=time @ w_time + bias, shared=obs @ w_obs)


class UNet1D(nn.Module):
    """The FiLM U-Net of Chi et al. 2023; semantics of their ConditionalUnet1D.

    features: Da. widths: channels per level; Tp must divide by 2^(levels - 1).
    kernel_size: k of the blocks. groups: of their GroupNorms.
    time_features: size of the time embedding.
    film_scale: scale and bias (True), or bias only.
    local: cond [B, Tp, F] is not in (1) but enters step by step, through a block whose output
        is added after the first block (the original adds it nowhere else).
    times: 2 where t is [..., 2], a time and the length of the interval that ends there
        (MeanFlow): their two embeddings are added.
    remat: blocks are computed again in the backward pass.
    kernels: "auto" or "xla", see `ops/kernels.py`.
    """

    features: int
    widths: tuple[int, ...] = (256, 512, 1024)
    kernel_size: int = 5
    groups: int = 8
    time_features: int = 256
    film_scale: bool = True
    local: bool = False
    times: int = 1
    remat: bool = False
    kernels: str = "auto"

    def setup(self):
        conv = functools.partial(Conv1D, kernels=self.kernels)
        dense = functools.partial(Dense, kernels=self.kernels)
        block = lambda width: ResBlock(
            width, self.kernel_size, self.groups, self.film_scale, self.kernels
        )
        # Blocks: two per level on the way down, two at the bottom, two per level on the way up.
        down = [width for width in self.widths for _ in range(2)]
        bottom = [self.widths[-1]] * 2
        up = [width for width in reversed(self.widths[:-1]) for _ in range(2)]
        outputs = [*down, *bottom, *up]
        self.blocks = [block(width) for width in outputs]
        self.downs = [conv(width, 3, stride=2) for width in self.widths[:-1]]
        self.ups = [Upsample1D(width, self.kernels) for width in reversed(self.widths[:-1])]
        if self.local:
            outputs.append(self.widths[0])
            self.local_block = block(self.widths[0])
        # One FiLM layer for all blocks.
        self.film_sizes = tuple(width * (2 if self.film_scale else 1) for width in outputs)
        self.film = Film(sum(self.film_sizes))
        # The MLP of the time embedding, and that of the interval's length.
        self.time_in = dense(4 * self.time_features)
        self.time_out = dense(self.time_features)
        if self.times == 2:
            self.span_in = dense(4 * self.time_features)
            self.span_out = dense(self.time_features)
        # The output: one more block, and a convolution of 1.
        self.last_block = ConvBlock(self.widths[0], self.kernel_size, LAST_GROUPS, self.kernels)
        self.last = conv(self.features, 1)

    def prepare(self, cond: Array, t: Array, keys: PRNGKey | None = None) -> Context:
        """The part of (1) that does not depend on x, for all blocks at once.

        cond [B, To, F], t [...] -> per_level [..., M], shared [B, M], or (zeros, cond) if `local`.
        """
        del keys  # nothing is random
        chex.assert_rank(cond, 3)
        waves = sinusoidal(t, self.time_features).astype(cond.dtype)
        time = self.time_out(mish(self.time_in(waves if self.times == 1 else waves[..., 0, :])))
        if self.times == 2:
            time += self.span_out(mish(self.span_in(waves[..., 1, :])))
        # With `local` nothing is left of the observation in (1), a size of 0.
        if self.local:
            film = self.film(mish(time), jnp.zeros((cond.shape[0], 0), cond.dtype))
            return film.replace(shared=(film.shared, cond))
        return self.film(mish(time), mish(cond.reshape(cond.shape[0], -1)))

    def denoise(self, x: Array, context: Context, keys: PRNGKey | None = None) -> Array:
        """x [B, Tp, Da], context.per_level [M] or [B, M] -> [B, Tp, Da]."""
        del keys  # nothing is random
        chex.assert_shape(x, (None, None, self.features))
        check_horizon(x.shape[1], self.widths)
        # The modulation of every block: one addition, then slices.
        shared, local = context.shared if self.local else (context.shared, None)
        films = jax.lax.split(context.per_level + shared, self.film_sizes, axis=-1)
        apply = lambda i, x: apply_block(self.blocks[i], x, films[i], remat=self.remat)
        levels = len(self.widths)

        # Down: two blocks per level, then half as many steps.
        skips = []
        for level in range(levels):
            x = apply(2 * level, x)
            if self.local and level == 0:
                x += self.local_block(local, films[-1])
            x = apply(2 * level + 1, x)
            skips.append(x)
            if level < levels - 1:
                x = self.downs[level](x)

        # Bottom.
        x = apply(2 * levels, x)
        x = apply(2 * levels + 1, x)

        # Up: the level's skip beside x, two blocks, then twice as many steps.
        for level in range(levels - 1):
            x = jnp.concatenate([x, skips.pop()], axis=-1)
            x = apply(2 * (levels + 1 + level), x)
            x = apply(2 * (levels + 1 + level) + 1, x)
            x = self.ups[level](x)
        return self.last(self.last_block(x))

    def __call__(self, x: Array, t: Array, cond: Array) -> Array:
        """x [B, Tp, Da], t [B], cond [B, To, F] -> [B, Tp, Da]."""
        return self.denoise(x, self.prepare(cond, t))


def check_horizon(horizon: int, widths: tuple[int, ...]) -> None:
    """Raises UserError for a horizon that the U-Net cannot halve often enough."""
    factor = 2 ** (len(widths) - 1)
    if horizon % factor:
        nearest = max(factor, round(horizon / factor) * factor)
        raise UserError(
            f"horizon={horizon} cannot be halved {len(widths) - 1} times, as a U-Net of "
            f"{len(widths)} levels needs: use a multiple of {factor} (such as {nearest}), or "
            "fewer widths.",
            argument="horizon",
        )


def check_sizes(
    widths: tuple[int, ...], groups: int, kernel_size: int = 5, time_features: int = 4
) -> None:
    """Raises UserError for sizes that make no network, or that the GroupNorms cannot split."""

    def require(condition: bool, argument: str, message: str) -> None:
        if not condition:
            raise UserError(message, argument=argument)

    is_odd = kernel_size > 0 and kernel_size % 2 == 1
    message = "must be odd: an even one moves the actions by half a step."
    require(is_odd, "kernel_size", f"kernel_size={kernel_size} {message}")
    is_even = time_features >= 4 and time_features % 2 == 0
    message = "must be even, and 4 at least."
    require(is_even, "time_features", f"time_features={time_features} {message}")
    require(len(widths) > 0, "widths", "widths is empty: give one width per level.")
    require(groups >= 1, "groups", f"groups={groups} must be at least 1.")
    message = f"which groups={groups} does not divide: use multiples of {groups}."
    for width in widths:
        is_multiple = width >= 1 and width % groups == 0
        require(is_multiple, "widths", f"widths has {width}, {message}")
    # The last block has as many channels as the first level.
    message = f"the last GroupNorm has {LAST_GROUPS} groups, use a multiple of {LAST_GROUPS}."
    is_multiple = widths[0] % LAST_GROUPS == 0
    require(is_multiple, "widths", f"widths starts with {widths[0]}: {message}")
