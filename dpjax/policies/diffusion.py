"""The hub: a policy is three pure functions, and whatever changes is in `params`.

    init    for training             Training needs `init` and `loss`; deployment
    loss    for training             needs `sample`; a test can make a policy out of
    sample  for acting               three lambdas.

`diffusion_policy` builds one from an encoder, a denoiser and a schedule: the loss is
Chi et al. 2023, eq. 5, the sampler walks eq. 1 of the same paper.
"""

from typing import Callable

import jax
import jax.numpy as jnp

from dpjax.core.normalizer import Normalizer
from dpjax.core.types import (
    ACTION,
    Array,
    Batch,
    Context,
    Observation,
    Params,
    Problem,
    example_keys,
    split_keys,
)
from dpjax.diffusion import parameterization, sampling
from dpjax.diffusion.samplers import Sampler
from dpjax.diffusion.schedules import Schedule
from dpjax.policies.base import Denoiser, Encoder, Policy
from dpjax.policies.conditioning import on_features


def diffusion_policy(
    encoder: Encoder,
    denoiser: Denoiser,
    schedule: Schedule,
    normalizer: Normalizer,
    *,
    horizon: int,
    sampler: Sampler,
    num_steps: int,
    spacing: str = "auto",
    predict: str = "epsilon",
    clip: float = 1.0,
    mask_padding: bool = False,
    unroll: int = 1,
    warm_start: float = 0.0,
    sampling_loop: Callable = sampling.sample,
    conditioning: Callable[[Array, Array], Problem] = on_features,
) -> Policy:
    """Diffusion Policy (Chi et al. 2023).

    normalizer: the one that `init` puts into params; `loss` and `sample` use params'.
    horizon: Tp. num_steps: S. clip: bound of |x̂_0| in network units while sampling.
    spacing: of the path's steps; "auto" takes the sampler's own.
    sampling_loop: `samplers.trace` makes a policy whose `sample` shows its way, [S, B, Tp, Da].
    warm_start: share of the path that a row with a previous plan skips; below 1.
    mask_padding: leave steps that repeat an episode's edge out of the loss.
    conditioning: (actions [B, Tp, Da], features [B, T, F]) -> Problem; `inpainting.inpaint` is
        the other one.
    """
    path = schedule.path(num_steps, sampler.spacing if spacing == "auto" else spacing)
    parameterization.check_prediction_type(predict, path)
    skipped = min(round(warm_start * num_steps), num_steps - 1)
    options = dict(sampler=sampler, clip=clip, unroll=unroll)
    return Policy(
        diffusion_init(encoder, denoiser, conditioning, normalizer, path.now.t.shape[1:]),
        diffusion_loss(encoder, denoiser, conditioning, schedule, predict, mask_padding),
        diffusion_sample(encoder, denoiser, conditioning, path, predict, horizon, sampling_loop, skipped, options),
    )


def diffusion_init(encoder, denoiser, conditioning, normalizer, times: tuple[int, ...]):
    """`init` of a Policy. times: the shape of what the denoiser is told as t, without [B]."""

    def init(rng, batch):
        encoder_rng, denoiser_rng = jax.random.split(rng)
        seen = normalizer.normalize(encoder.view(batch.obs))
        params = {"encoder": encoder.init(encoder_rng, seen), "normalizer": normalizer}
        problem = read_batch(encoder, conditioning, params, batch)
        t = jnp.zeros((len(problem.x0), *times), jnp.int32)
        params["denoiser"] = denoiser.init(denoiser_rng, problem.x0, t, problem.cond)
        return params

    return init


def diffusion_loss(encoder, denoiser, conditioning, schedule, predict, mask_padding):
    """`loss` of a Policy: the squared error of what is predicted (Chi et al. 2023, eq. 5)."""

    def loss(params, rng, batch):
        keys = split_keys(example_keys(rng, batch.index), 4)
        level_keys, noise_keys, drop_keys, obs_keys = keys
        problem = read_batch(encoder, conditioning, params, batch, obs_keys)
        level, eps = sampling.draw(schedule, level_keys, noise_keys, problem.x0.shape[1:])
        x = problem.give(parameterization.add_noise(problem.x0, eps, level))
        context = denoiser.prepare(params["denoiser"], problem.cond, level.t, drop_keys)
        y = denoiser.apply(params["denoiser"], x, context, drop_keys)
        # What is known has no loss, but counts in the denominator.
        error = problem.still(y - parameterization.prediction(predict, problem.x0, eps, level))
        error = jnp.square(error).mean(-1)  # [B, Tp]
        weight = batch.mask.astype(error.dtype) if mask_padding else jnp.ones_like(error)
        return jnp.sum(error * weight), {"weight": jnp.sum(weight)}

    return loss


def diffusion_sample(encoder, denoiser, conditioning, path, predict, horizon, sampling_loop, skipped, options):
    """`sample` of a Policy: a sampling_loop along the path, from noise or from the previous plan.

    skipped: steps that a row with a previous plan leaves out. options: of the sampling_loop.
    """

    def sample(params, rng, obs, previous=None):
        seen = features(encoder, params, obs)
        action_dim = params["normalizer"].offset[ACTION].shape[-1]
        batch = seen.shape[0]  # not len(): in an export it is a symbol
        problem = conditioning(jnp.zeros((batch, horizon, action_dim), seen.dtype), seen)
        context = denoiser.prepare(params["denoiser"], problem.cond, path.now.t)
        keys = example_keys(rng, jnp.arange(batch)) if rng.ndim == 0 else rng
        start_keys, walk_keys = split_keys(keys, 2)

        def read(x, level, at_level):
            x = problem.give(x)
            y = denoiser.apply(params["denoiser"], x, Context(at_level, context.plan))
            return parameterization.estimate(predict, y, x, level)

        run = sampling_loop
        if skipped and previous is not None:
            last = params["normalizer"].normalize({ACTION: previous})[ACTION]
            run = sampling.warm_start(sampling_loop, last, skipped)
        noise = sampling.draw_noise(start_keys, problem.x0.shape[1:])
        x0 = run(read, noise, path, walk_keys, each_step=context.step, **options)
        return params["normalizer"].restore(ACTION, x0[..., :action_dim])

    return sample


def features(encoder: Encoder, params: Params, obs: Observation, keys=None) -> Array:
    """What the encoder makes of observations in data units: [B, To, F]."""
    seen = params["normalizer"].normalize(encoder.view(obs, keys))
    return encoder.apply(params["encoder"], seen, keys)


def read_batch(encoder: Encoder, conditioning, params: Params, batch: Batch, keys=None) -> Problem:
    """A batch in data units as what is to be learned: [B, Tp, D] in network units."""
    actions = params["normalizer"].normalize({ACTION: batch.actions})[ACTION]
    return conditioning(actions, features(encoder, params, batch.obs, keys))
