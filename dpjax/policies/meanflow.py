"""MeanFlow: the network says the mean velocity over an interval, and one step suffices.

Geng et al. 2025, on the rectified flow z_t = (1 - t) x_0 + t ε with v = ε - x_0. Between
r and t the mean of dz/dτ and with it the step are

    u(z_t, r, t) = 1/(t - r) ∫_r^t v(z_τ, τ) dτ,    z_r = z_t - (t - r) u,          (1)

and its derivative along the flow makes a target out of the network itself, the MeanFlow
identity, whose total derivative is one Jacobian-vector product in the direction (v, 1):

    u = v - (t - r) d/dt u(z_t, r, t),    d/dt u = v ∂_z u + ∂_t u.                 (2)

Trained from scratch, without a teacher. The step in (1) is DDIM's of a network that
predicts "velocity", so that only the loss is new, and what the network is told: (t, t - r).
"""

from typing import Callable

import jax
import jax.numpy as jnp

from dpjax.core.normalizer import Normalizer
from dpjax.core.types import Array, Problem, example_keys, split_keys
from dpjax.diffusion import parameterization, samplers, sampling, schedules
from dpjax.diffusion.schedules import Level, Path, Schedule
from dpjax.policies import diffusion as policies
from dpjax.policies.base import Denoiser, Encoder, Policy
from dpjax.policies.conditioning import on_features

INTERVALS = 0.25  # share of rows with r < t (Geng et al. 2025, table 1a)
POWER = 1.0  # p of the adaptive weight (table 1e)
FLOOR = 1e-3  # c of the adaptive weight (sec. 4.3)
TIME_MEAN, TIME_STD = -0.4, 1.0  # t and r are logit-normal (table 1d)


def intervals(num_levels: int, share: float) -> Schedule:
    """`schedules.rectified_flow` whose level's t is [..., 2]: K t and K (t - r).

    share: of the draws that have r < t; the others are of flow matching. A path's r is
    the time that the step leads to.
    """
    flow = schedules.rectified_flow(num_levels)

    def draw(rng, shape):
        time_rng, share_rng = jax.random.split(rng)
        normal = jax.random.normal(time_rng, (2, *shape))
        times = jax.nn.sigmoid(TIME_MEAN + TIME_STD * normal)
        t = times.max(0)
        span = jnp.where(jax.random.bernoulli(share_rng, share, shape), t - times.min(0), 0.0)
        return Level(num_levels * jnp.stack([t, span], -1), 1 - t, t)

    def path(num_steps, spacing="auto"):
        now, to = flow.path(num_steps, spacing)
        return Path(now.replace(t=jnp.stack([now.t, now.t - to.t], -1)), to)

    return Schedule(draw, path)


def meanflow_policy(
    encoder: Encoder,
    denoiser: Denoiser,
    normalizer: Normalizer,
    *,
    num_steps: int = 1,
    num_levels: int = 1,
    share: float = INTERVALS,
    power: float = POWER,
    mask_padding: bool = False,
    sampling_loop: Callable = sampling.sample,
    conditioning: Callable[[Array, Array], Problem] = on_features,
    **options,
) -> Policy:
    """A policy that samples in 1 to 4 steps; options as in `policy.diffusion_policy`, but

    denoiser: its times are [..., 2]. num_levels: K, what time 1 is told as: the derivative in
        (2) grows with it, with 1 it learned far better
        than with 100 (`experiments/samplers`).
    share: see `intervals`. power: see `meanflow_loss`.
    clip: bound of |x_0| in network units, of the end only: in between there is no x̂_0.
    """
    schedule = intervals(num_levels, share)

    def to_the_end(predict, x, path, keys, *, clip, **options):
        bound = jnp.where(path.to.sigma[-1] > 0, jnp.inf, clip)
        return jnp.clip(sampling_loop(predict, x, path, keys, **options), -bound, bound)

    policy = policies.diffusion_policy(
        encoder,
        denoiser,
        schedule,
        normalizer,
        sampler=samplers.ddim(),
        predict="velocity",
        num_steps=num_steps,
        sampling_loop=to_the_end,
        conditioning=conditioning,
        **options,
    )
    learn = meanflow_loss(encoder, denoiser, schedule, conditioning, num_levels, power, mask_padding)
    return policy._replace(loss=learn)


def meanflow_loss(encoder, denoiser, schedule, conditioning, num_levels, power, mask_padding):
    """`loss` of a Policy: equation (2), a sum over the rows weighted by their own errors.

    power: p of a row's weight 1/(‖error‖² + c)^p: 0 is a plain square, 1 nearly ‖error‖.
        With p = 1 the loss's value says little, it is near 1; its gradient does not.
    """

    def loss(params, rng, batch):
        keys = split_keys(example_keys(rng, batch.index), 4)
        level_keys, noise_keys, drop_keys, obs_keys = keys
        problem = policies.read_batch(encoder, conditioning, params, batch, obs_keys)
        level, eps = sampling.draw(schedule, level_keys, noise_keys, problem.x0.shape[1:])
        z = problem.give(parameterization.add_noise(problem.x0, eps, level))
        v = problem.still(eps - problem.x0)

        def u(z, t):
            context = denoiser.prepare(params["denoiser"], problem.cond, t, drop_keys)
            return denoiser.apply(params["denoiser"], z, context, drop_keys)

        # With r fixed both numbers that the network is told grow by K as t does by 1.
        said, slope = jax.jvp(u, (z, level.t), (v, jnp.full_like(level.t, num_levels)))
        span = parameterization.expand(level.t[:, 1] / num_levels, v)
        error = problem.still(said - jax.lax.stop_gradient(v - span * slope))
        mask = batch.mask if mask_padding else jnp.ones_like(batch.mask)
        square = jnp.sum(jnp.square(error).sum(-1) * mask, -1)  # [B], ‖error‖²
        steps = mask.astype(square.dtype).sum(-1)
        weight = jax.lax.stop_gradient(steps / (square + FLOOR) ** power)
        return jnp.sum(weight * square), {"weight": jnp.sum(steps)}

    return loss
