"""The 1-D U-Net over the action sequence, modulated by the observation (FiLM).

Chi et al. 2023, fig. 3b: convolutions along time; the time step and the observation
enter every block as a scale and a bias per channel (Perez et al. 2018),

    h = scale(c) h + bias(c),    c = Mish([time embedding; observation]).   (1)

Nothing in (1) depends on x. `prepare` computes it for all blocks at once, and since
Mish acts element by element, W c = W_t Mish(t) + W_o Mish(o): the observation's half
once a plan, the time's half once a sampling step, and a sampler's loop holds `apply`
alone.
"""

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp

from dpjax.core.errors import UserError
from dpjax.core.types import Context, PRNGKey
from dpjax.nets.layers import (
    Dense,
    group_norm,
    mish,
    rerun,
    scale_and_bias,
    sinusoidal,
    torch_uniform,
)
from dpjax.ops.conv1d import conv, upsample
from dpjax.ops.transposed import weights

Array = jax.Array


class Conv(nn.Module):
    """Convolution with bias; `kind` same (stride 1), down (k 3, stride 2), up (k 4)."""

    features: int
    size: int
    kind: str = "same"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        fan_in = self.size * (self.features if self.kind == "up" else x.shape[-1])
        shape = (self.size, x.shape[-1], self.features)
        kernel = weights(self, torch_uniform, shape, fan_in)
        bias = self.param("bias", torch_uniform, (self.features,), fan_in)
        if self.kind == "up":
            return upsample(x, kernel) + bias
        stride = 2 if self.kind == "down" else 1
        return conv(x, kernel, stride=stride, padding=self.size // 2) + bias


class ConvBlock(nn.Module):
    """Convolution, GroupNorm, Mish."""

    features: int
    size: int
    groups: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = Conv(self.features, self.size, name="conv")(x)
        return mish(group_norm(x, *scale_and_bias(self, self.features), self.groups))


class ResBlock(nn.Module):
    """Two convolution blocks with the modulation (1) between them, and a shortcut."""

    features: int
    size: int
    groups: int
    film_scale: bool

    @nn.compact
    def __call__(self, x: Array, film: Array) -> Array:
        """x [B, L, C], film [B, 2 D] (scale, then bias) or [B, D] -> [B, L, D]."""
        h = ConvBlock(self.features, self.size, self.groups, name="block0")(x)
        film = film[:, None, :]
        if self.film_scale:
            h = film[..., : self.features] * h + film[..., self.features :]
        else:
            h = h + film
        h = ConvBlock(self.features, self.size, self.groups, name="block1")(h)
        if x.shape[-1] != self.features:
            x = Conv(self.features, 1, name="shortcut")(x)
        return h + x


class Film(nn.Module):
    """The linear layers of all blocks' modulations, side by side, in two halves."""

    features: int

    @nn.compact
    def __call__(self, time: Array, obs: Array) -> Context:
        """time [..., D], obs [B, To F], both after Mish -> step [..., M], plan [B, M]."""
        fan_in = time.shape[-1] + obs.shape[-1]
        init = lambda rng, n: torch_uniform(rng, (n, self.features), fan_in)
        bias = self.param("bias", torch_uniform, (self.features,), fan_in)
        w_time = self.param("time", init, time.shape[-1])
        w_obs = self.param("obs", init, obs.shape[-1])
        return Context(per_level=time @ w_time + bias, shared=obs @ w_obs)


class UNet1D(nn.Module):
    """The FiLM U-Net of Chi et al. 2023; semantics of their ConditionalUnet1D.

    features: Da, size of an action.
    widths: channels of the levels; Tp must divide by 2^(levels - 1).
    kernel_size: k of the blocks. groups: of the GroupNorms (the last has 8 always).
    time_features: size of the time embedding.
    film_scale: scale and bias (True), or bias only.
    local: cond is not in (1) but enters step by step, [B, Tp, F]: a block of its own, whose
        output is added after the first block (the original adds it nowhere else).
    times: 2 where t is [..., 2], a time and the length of an interval that ends there
        (MeanFlow): the sum of two embeddings.
    remat: blocks are computed again in the backward pass.
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

    def setup(self):
        down = [w for w in self.widths for _ in range(2)]
        up = [w for w in reversed(self.widths[:-1]) for _ in range(2)]
        outputs = [*down, self.widths[-1], self.widths[-1], *up]
        block = lambda w: ResBlock(w, self.kernel_size, self.groups, self.film_scale)
        self.blocks = [block(w) for w in outputs]
        self.downs = [Conv(w, 3, "down") for w in self.widths[:-1]]
        self.ups = [Conv(w, 4, "up") for w in reversed(self.widths[:-1])]
        if self.local:
            outputs.append(self.widths[0])
            self.local_block = block(self.widths[0])
        self.outputs = tuple(outputs)
        self.film = Film(sum(outputs) * (2 if self.film_scale else 1))
        self.time_in = Dense(4 * self.time_features)
        self.time_out = Dense(self.time_features)
        if self.times == 2:
            self.span_in, self.span_out = Dense(4 * self.time_features), Dense(self.time_features)
        self.last_block = ConvBlock(self.widths[0], self.kernel_size, 8)
        self.last = Conv(self.features, 1)

    def prepare(self, cond: Array, t: Array, keys: PRNGKey | None = None) -> Context:
        """cond [B, To, F], t [...] -> Context: step [..., M], plan [B, M] (and cond if local)."""
        del keys  # there is no dropout in it
        chex.assert_rank(cond, 3)
        waves = sinusoidal(t, self.time_features).astype(cond.dtype)
        time = self.time_out(mish(self.time_in(waves if self.times == 1 else waves[..., 0, :])))
        if self.times == 2:
            time += self.span_out(mish(self.span_in(waves[..., 1, :])))
        if self.local:
            film = self.film(mish(time), jnp.zeros((cond.shape[0], 0), cond.dtype))
            return film.replace(shared=(film.shared, cond))
        return self.film(mish(time), mish(cond.reshape(cond.shape[0], -1)))

    def denoise(self, x: Array, context: Context, keys: PRNGKey | None = None) -> Array:
        """x [B, Tp, Da], context.per_level [M] or [B, M] -> [B, Tp, Da]."""
        del keys
        chex.assert_shape(x, (None, None, self.features))
        check_horizon(x.shape[1], self.widths)
        plan, local = context.shared if self.local else (context.shared, None)
        films = self._split(context.per_level + plan)
        blocks = iter(zip(self.blocks, films))
        levels = len(self.widths)
        skips = []

        def two_blocks(x, between=0.0):
            for added in (between, 0.0):
                block, film = next(blocks)
                x = rerun(self.remat, block, x, film) + added
            return x

        for i in range(levels):
            x = two_blocks(x, self.local_block(local, films[-1]) if self.local and i == 0 else 0.0)
            skips.append(x)
            if i < levels - 1:
                x = self.downs[i](x)
        x = two_blocks(x)
        for i in range(levels - 1):
            x = two_blocks(jnp.concatenate([x, skips.pop()], axis=-1))
            x = self.ups[i](x)
        return self.last(self.last_block(x))

    def __call__(self, x: Array, t: Array, cond: Array) -> Array:
        """x [B, Tp, Da], t [B], cond [B, To, F] -> [B, Tp, Da]."""
        return self.denoise(x, self.prepare(cond, t))

    def _split(self, film):
        """[B, M] -> one [B, 2 D] (or [B, D]) a block."""
        sizes = [width * (2 if self.film_scale else 1) for width in self.outputs]
        return jax.lax.split(film, sizes, axis=-1)


def check_horizon(horizon: int, widths: tuple[int, ...]) -> None:
    """Refuses a horizon that the U-Net cannot halve often enough."""
    factor = 2 ** (len(widths) - 1)
    if horizon % factor:
        near = max(factor, round(horizon / factor) * factor)
        raise UserError(
            f"config.horizon.predict={horizon} cannot be halved {len(widths) - 1} times, as "
            f"a U-Net of {len(widths)} levels needs: use a multiple of {factor} (such as "
            f"{near}), or fewer config.denoiser.widths."
        )


def check_sizes(
    widths: tuple[int, ...], groups: int, kernel_size: int = 5, time_features: int = 4
) -> None:
    """Refuses widths that the GroupNorms cannot split, and sizes that make no network."""
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise UserError(
            f"config.denoiser.kernel_size={kernel_size} must be odd: an even one moves the "
            "actions by half a step."
        )
    if time_features < 4 or time_features % 2:
        raise UserError(
            f"config.denoiser.time_features={time_features} must be even, and 4 at least."
        )
    if not widths:
        raise UserError("config.denoiser.widths is empty: give one width a level.")
    if groups < 1:
        raise UserError(f"config.denoiser.groups={groups} must be at least 1.")
    for width in widths:
        if width < 1 or width % groups:
            raise UserError(
                f"config.denoiser.widths has {width}, which config.denoiser.groups={groups} "
                f"does not divide: use multiples of {groups}."
            )
    if widths[0] % 8:
        raise UserError(
            f"config.denoiser.widths starts with {widths[0]}: the last GroupNorm has 8 groups, "
            "use a multiple of 8."
        )
