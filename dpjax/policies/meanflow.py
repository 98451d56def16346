"""MeanFlow (Geng et al. 2025): the network predicts the mean velocity over an interval.

With it, a single step leads from noise to data. The process is the rectified flow
z_t = (1 - t) x_0 + t ε, whose velocity is v = ε - x_0. The mean velocity between times r and t,
and the step from t to r, are

    u(z_t, r, t) = 1/(t - r) ∫_r^t v(z_τ, τ) dτ,    z_r = z_t - (t - r) u.          (1)

The derivative of (1) with respect to t is the MeanFlow identity. Its right side is the training
target, with the network in place of u. The total derivative in it is a single Jacobian-vector
product, in the direction (v, 1):

    u = v - (t - r) d/dt u(z_t, r, t),    d/dt u = v ∂_z u + ∂_t u.                 (2)

The network is trained from scratch, without a teacher. The step in (1) is the DDIM step of a
network that predicts "velocity". So a MeanFlow policy differs from a diffusion policy only in its
loss and in its two times per level, t and t - r.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dpjax.core.normalizer import Normalizer
from dpjax.core.types import Array, Batch, Metrics, Params, PRNGKey, example_keys, split_keys
from dpjax.diffusion import parameterization, samplers, sampling, schedules
from dpjax.diffusion.schedules import Level, Path, Schedule
from dpjax.policies import diffusion
from dpjax.policies.base import Denoiser, Encoder, Policy
from dpjax.policies.conditioning import Conditioning, batch_problem, on_features

INTERVALS = 0.25  # share of examples with r < t (Geng et al. 2025, table 1a)
POWER = 1.0  # p of the adaptive weight (table 1e)
FLOOR = 1e-3  # c of the adaptive weight (sec. 4.3)
TIME_MEAN = -0.4  # t and r are logit-normal, with this mean …
TIME_STD = 1.0  # … and this standard deviation (table 1d)


def intervals(num_levels: int, share: float) -> Schedule:
    """`schedules.rectified_flow` with two times per level: t is [..., 2], K t and K (t - r).

    num_levels: K.
    share: the share of random levels with r < t. The others have r = t, where (2) is the target
        of flow matching. On a path, r is the time at the end of the step.
    """
    flow = schedules.rectified_flow(num_levels)

    def draw(rng: PRNGKey, shape: tuple[int, ...]) -> Level:
        time_rng, share_rng = jax.random.split(rng)
        # Two times per level. The larger one is t. The smaller one is r, unless r = t.
        normal = jax.random.normal(time_rng, (2, *shape))
        times = jax.nn.sigmoid(TIME_MEAN + TIME_STD * normal)
        t = times.max(0)
        has_interval = jax.random.bernoulli(share_rng, share, shape)
        # t - r, the length of the interval.
        span = jnp.where(has_interval, t - times.min(0), 0.0)
        return Level(t=num_levels * jnp.stack([t, span], -1), alpha=1 - t, sigma=t)

    def path(num_steps: int, spacing: str = "auto") -> Path:
        now, to = flow.path(num_steps, spacing)
        times = np.stack([now.t, now.t - to.t], -1)  # [S, 2], K t and K (t - r)
        return Path(dataclasses.replace(now, t=times), to)

    return Schedule(draw, path)


def meanflow_policy(
    encoder: Encoder,
    denoiser: Denoiser,
    normalizer: Normalizer | None,
    *,
    num_steps: int = 1,
    num_levels: int = 1,
    share: float = INTERVALS,
    power: float = POWER,
    mask_padding: bool = False,
    sampling_loop: Callable[..., Array] = sampling.sample,
    conditioning: Conditioning = on_features,
    **options: Any,
) -> Policy:
    """A policy that samples in 1 to 4 steps.

    denoiser: a network with two times, [..., 2].
    num_levels: K, the scale of the network's time inputs. The derivative in (2) grows with K;
        K = 1 trains far better than 100 (`experiments/samplers`).
    share: the share of examples with r < t, see `intervals`.
    power: the exponent of the adaptive weight, see `meanflow_loss`.
    options: the other arguments of `diffusion_policy`. `clip` bounds |x_0| at the end of the path
        only, because the earlier steps do not estimate x_0.
    """
    schedule = intervals(num_levels, share)

    def clip_at_the_end(
        predict: Callable, x: Array, path: Path, keys: PRNGKey, *, clip: float, **options: Any
    ) -> Array:
        # A warm start runs the loop on two parts of the path. The first part ends at σ > 0, where
        # x is still noisy and must not be clipped.
        bound = jnp.where(path.to.sigma[-1] > 0, jnp.inf, clip)
        return jnp.clip(sampling_loop(predict, x, path, keys, **options), -bound, bound)

    policy = diffusion.diffusion_policy(
        encoder,
        denoiser,
        schedule,
        normalizer,
        sampler=samplers.ddim(),
        prediction_type="velocity",
        num_steps=num_steps,
        sampling_loop=clip_at_the_end,
        conditioning=conditioning,
        **options,
    )
    # Everything but the loss is a diffusion policy's.
    loss = meanflow_loss(encoder, denoiser, conditioning, schedule, num_levels, power, mask_padding)
    return policy._replace(loss=loss)


def meanflow_loss(
    encoder: Encoder,
    denoiser: Denoiser,
    conditioning: Conditioning,
    schedule: Schedule,
    num_levels: int,
    power: float,
    mask_padding: bool,
) -> diffusion.Loss:
    """`loss` of a Policy: the squared error of equation (2), with a weight per example.

    power: p of the weight 1/(‖error‖² + c)^p, which has no gradient. With p = 0 the loss is the
        plain square. With p = 1 its gradient is nearly that of log ‖error‖², and its value stays
        near 1 however well the network has learned.
    """

    def loss(params: Params, rng: PRNGKey, batch: Batch) -> tuple[Array, Metrics]:
        keys = split_keys(example_keys(rng, batch.index), 4)
        level_keys, noise_keys, dropout_keys, obs_keys = keys

        # 1. The clean data, the same data with noise, and the velocity between the two.
        problem = batch_problem(encoder, conditioning, params, batch, obs_keys)
        level, eps = sampling.draw(schedule, level_keys, noise_keys, problem.x0.shape[1:])
        z = problem.insert_known(parameterization.add_noise(problem.x0, eps, level))
        v = problem.mask_known(eps - problem.x0)

        # 2. The network's u and its derivative along the flow. With r fixed, K t and K (t - r)
        #    both grow by K as t grows by 1.
        def network(z: Array, t: Array) -> Array:
            context = denoiser.prepare(params["denoiser"], problem.cond, t, dropout_keys)
            return denoiser.apply(params["denoiser"], z, context, dropout_keys)

        direction = (v, jnp.full_like(level.t, num_levels))
        u, du_dt = jax.jvp(network, (z, level.t), direction)

        # 3. The error of equation (2). Its right side is the target and has no gradient.
        span = parameterization.expand(level.t[:, 1] / num_levels, v)  # t - r
        error = problem.mask_known(u - jax.lax.stop_gradient(v - span * du_dt))

        # 4. The sum of squares of each example, with its weight.
        mask = batch.mask if mask_padding else jnp.ones_like(batch.mask)
        return _weighted_sum(error, mask, power)

    return loss


def _weighted_sum(error: Array, mask: Array, power: float) -> tuple[Array, Metrics]:
    """The sum of the weighted squared errors, of error [B, Tp, D] and mask [B, Tp]."""
    square = jnp.sum(jnp.square(error).sum(-1) * mask, -1)  # [B], ‖error‖²
    steps = mask.astype(square.dtype).sum(-1)  # [B], how many steps are in each sum
    # No gradient flows through the weight. It contains the number of steps because the caller
    # divides the total by that number.
    weight = jax.lax.stop_gradient(steps / (square + FLOOR) ** power)
    return jnp.sum(weight * square), {"weight": jnp.sum(steps)}
