"""The hub: a policy is three pure functions, and whatever changes is in `params`.

    init    for training             Training needs `init` and `loss`; deployment
    loss    for training             needs `sample`; a test can make a policy out of
    sample  for acting               three lambdas.

`diffusion_policy` builds one from an encoder, a denoiser and a schedule: the loss is
Chi et al. 2023, eq. 5, the sampler walks eq. 1 of the same paper.
"""

from typing import Any, Callable, NamedTuple

import jax
import jax.numpy as jnp

from dpjax.diffusion import samplers, streaming, targets
from dpjax.diffusion.samplers import Sampler
from dpjax.diffusion.schedules import Schedule
from dpjax.normalizer import Normalizer
from dpjax.types import (
    Array,
    Batch,
    Context,
    Metrics,
    Observation,
    Params,
    PRNGKey,
    Problem,
    cast,
    row_keys,
    split_keys,
)

ACTION = "action"  # the actions' key in the normalizer


class Policy(NamedTuple):
    """A policy is three pure functions.

    init: `(rng, batch) -> params` with items "encoder", "denoiser", "normalizer".
    loss: `(params, rng, batch) -> (total [], sums)`: the sum of the rows' losses, and
        metrics that are sums too, among them "weight", what to divide by; sums, so
        that devices can be added before anything is divided.
    sample: `(params, rng, obs, previous=None) -> actions [B, Tp, Da]` in data units; rng
        is one key, or keys [B], one a row; previous, for a warm start, is what the last
        plan says about the steps of this one, [B, Tp, Da], NaN where it says nothing.
    """

    init: Callable[[PRNGKey, Batch], Params]
    loss: Callable[[Params, PRNGKey, Batch], tuple[Array, Metrics]]
    sample: Callable[..., Array]


def on_features(actions: Array, features: Array) -> Problem:
    """The actions are denoised, the features [B, To, F] condition it (the paper's FiLM)."""
    return Problem(actions, features, None)


def on_steps(actions: Array, features: Array) -> Problem:
    """The features condition the action of their own step: [B, Tp, F], 0 after To."""
    missing = max(actions.shape[1] - features.shape[1], 0)
    return Problem(actions, jnp.pad(features, ((0, 0), (0, missing), (0, 0))), None)


def as_they_are(obs: Observation, keys: PRNGKey | None = None) -> Observation:
    """The view of an encoder without cameras."""
    del keys
    return obs


class Encoder(NamedTuple):
    """From observations to features, in network units but for `view`.

    init: `(rng, obs) -> params`. apply: `(params, obs, keys) -> features [B, To, F]`.
    view: `(obs, keys) -> obs`, both in data units: crops and other augmentation of images.
    keys: one a row [B] in training, for what is random; None where nothing is.
    """

    init: Callable[[PRNGKey, Observation], Any]
    apply: Callable[..., Array]
    view: Callable[..., Observation] = as_they_are


class Denoiser(NamedTuple):
    """A network in two parts, so that what does not depend on x is computed once.

    init: `(rng, x, t, cond) -> params`.
    prepare: `(params, cond [B, To, F], t [S] or [B], keys) -> Context`; a network that is
        told two times (`meanflow`) gets t [S, 2] or [B, 2].
    apply: `(params, x [B, Tp, Da], context of one level, keys) -> y [B, Tp, Da]`.
    keys: one a row [B] in training, for dropout; None, the default, where it is off.
    """

    init: Callable[..., Any]
    prepare: Callable[[Any, Array, Array], Context]
    apply: Callable[[Any, Array, Context], Array]


def encoder_of(module, view=as_they_are, dtype=jnp.float32) -> Encoder:
    """An Encoder of a flax module `(obs, keys) -> [B, To, F]`.

    dtype: what it computes in, float32 in and out. Without weights it computes nothing,
        and its numbers stay what they are.
    """

    def apply(params, obs, keys=None):
        used = dtype if jax.tree.leaves(params) else jnp.float32
        made = module.apply({"params": cast(params, used)}, cast(obs, used), keys)
        return made.astype(jnp.float32)

    return Encoder(lambda rng, obs: module.init(rng, obs).get("params", {}), apply, view)


def denoiser_of(module, dtype=jnp.float32) -> Denoiser:
    """A Denoiser of a flax module with methods `prepare` and `denoise`.

    dtype: what it computes in; x, params and y are float32, times are never cast.
    """

    def run(method, params, x, *others):
        return module.apply({"params": cast(params, dtype)}, cast(x, dtype), *others, method=method)

    def apply(params, x, context, keys=None):
        return run(module.denoise, params, x, context, keys).astype(jnp.float32)

    return Denoiser(
        init=lambda rng, x, t, cond: module.init(rng, x, t, cond)["params"],
        prepare=lambda params, cond, t, keys=None: run(module.prepare, params, cond, t, keys),
        apply=apply,
    )


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
    walk: Callable = samplers.sample,
    pose: Callable[[Array, Array], Problem] = on_features,
) -> Policy:
    """Diffusion Policy (Chi et al. 2023).

    normalizer: the one that `init` puts into params; `loss` and `sample` use params'.
    horizon: Tp. num_steps: S. clip: bound of |x̂_0| in network units while sampling.
    spacing: of the path's steps; "auto" takes the sampler's own.
    walk: `samplers.trace` makes a policy whose `sample` shows its way, [S, B, Tp, Da].
    warm_start: share of the path that a row with a previous plan skips; below 1.
    mask_padding: leave steps that repeat an episode's edge out of the loss.
    pose: (actions [B, Tp, Da], features [B, T, F]) -> Problem; `inpainting.inpaint` is
        the other one.
    """
    path = schedule.path(num_steps, sampler.spacing if spacing == "auto" else spacing)
    targets.check(predict, path)
    skipped = min(round(warm_start * num_steps), num_steps - 1)
    options = dict(sampler=sampler, clip=clip, unroll=unroll)
    return Policy(
        diffusion_init(encoder, denoiser, pose, normalizer, path.now.t.shape[1:]),
        diffusion_loss(encoder, denoiser, pose, schedule, predict, mask_padding),
        diffusion_sample(encoder, denoiser, pose, path, predict, horizon, walk, skipped, options),
    )


def diffusion_init(encoder, denoiser, pose, normalizer, times: tuple[int, ...]):
    """`init` of a Policy. times: the shape of what the denoiser is told as t, without [B]."""

    def init(rng, batch):
        encoder_rng, denoiser_rng = jax.random.split(rng)
        seen = normalizer.normalize(encoder.view(batch.obs))
        params = {"encoder": encoder.init(encoder_rng, seen), "normalizer": normalizer}
        problem = read_batch(encoder, pose, params, batch)
        t = jnp.zeros((len(problem.x0), *times), jnp.int32)
        params["denoiser"] = denoiser.init(denoiser_rng, problem.x0, t, problem.cond)
        return params

    return init


def diffusion_loss(encoder, denoiser, pose, schedule, predict, mask_padding):
    """`loss` of a Policy: the squared error of what is predicted (Chi et al. 2023, eq. 5)."""

    def loss(params, rng, batch):
        keys = split_keys(row_keys(rng, batch.row), 4)
        level_keys, noise_keys, drop_keys, obs_keys = keys
        problem = read_batch(encoder, pose, params, batch, obs_keys)
        level, eps = samplers.draw(schedule, level_keys, noise_keys, problem.x0.shape[1:])
        x = problem.give(targets.add_noise(problem.x0, eps, level))
        context = denoiser.prepare(params["denoiser"], problem.cond, level.t, drop_keys)
        y = denoiser.apply(params["denoiser"], x, context, drop_keys)
        # What is known has no loss, but counts in the denominator.
        error = problem.still(y - targets.target(predict, problem.x0, eps, level))
        error = jnp.square(error).mean(-1)  # [B, Tp]
        weight = batch.mask.astype(error.dtype) if mask_padding else jnp.ones_like(error)
        return jnp.sum(error * weight), {"weight": jnp.sum(weight)}

    return loss


def diffusion_sample(encoder, denoiser, pose, path, predict, horizon, walk, skipped, options):
    """`sample` of a Policy: a walk along the path, from noise or from the previous plan.

    skipped: steps that a row with a previous plan leaves out. options: of the walk.
    """

    def sample(params, rng, obs, previous=None):
        seen = features(encoder, params, obs)
        action_dim = params["normalizer"].offset[ACTION].shape[-1]
        batch = seen.shape[0]  # not len(): in an export it is a symbol
        problem = pose(jnp.zeros((batch, horizon, action_dim), seen.dtype), seen)
        context = denoiser.prepare(params["denoiser"], problem.cond, path.now.t)
        keys = row_keys(rng, jnp.arange(batch)) if rng.ndim == 0 else rng
        start_keys, walk_keys = split_keys(keys, 2)

        def read(x, level, at_level):
            x = problem.give(x)
            y = denoiser.apply(params["denoiser"], x, Context(at_level, context.plan))
            return targets.read(predict, y, x, level)

        run = walk
        if skipped and previous is not None:
            last = params["normalizer"].normalize({ACTION: previous})[ACTION]
            run = streaming.begin_with(walk, last, skipped)
        noise = samplers.draw_rows(start_keys, problem.x0.shape[1:])
        x0 = run(read, noise, path, walk_keys, each_step=context.step, **options)
        return params["normalizer"].restore(ACTION, x0[..., :action_dim])

    return sample


def features(encoder: Encoder, params: Params, obs: Observation, keys=None) -> Array:
    """What the encoder makes of observations in data units: [B, To, F]."""
    seen = params["normalizer"].normalize(encoder.view(obs, keys))
    return encoder.apply(params["encoder"], seen, keys)


def read_batch(encoder: Encoder, pose, params: Params, batch: Batch, keys=None) -> Problem:
    """A batch in data units as what is to be learned: [B, Tp, D] in network units."""
    actions = params["normalizer"].normalize({ACTION: batch.actions})[ACTION]
    return pose(actions, features(encoder, params, batch.obs, keys))
