"""Diffusion Policy (Chi et al. 2023): a denoiser turns noise into action chunks, step by step.

`diffusion_policy` builds a `Policy` from an encoder, a denoiser and a schedule. Its functions:

    init     encoder, denoiser and normalizer in one tree of params
    loss     equation 5 of the paper: the squared error of the prediction at a random level
    sample   equation 1 of the paper: a sampling loop along a path of levels

Each of them is built by a separate function below, so that other methods can reuse the others
(`meanflow` replaces the loss).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dpjax.core.normalizer import Normalizer
from dpjax.core.types import (
    ACTION,
    Array,
    Batch,
    Context,
    Metrics,
    Observation,
    Params,
    PRNGKey,
    Problem,
    example_keys,
    split_keys,
)
from dpjax.diffusion import agreement, parameterization, sampling
from dpjax.diffusion.parameterization import Estimate
from dpjax.diffusion.samplers import Sampler
from dpjax.diffusion.schedules import Level, Path, Schedule
from dpjax.policies.base import Denoiser, Encoder, Policy, Sample
from dpjax.policies.conditioning import Conditioning, batch_problem, encode, on_features

# The types of the first two functions of a Policy; the third is `Sample`.
Init = Callable[[PRNGKey, Batch], Params]
Loss = Callable[[Params, PRNGKey, Batch], tuple[Array, Metrics]]


def diffusion_policy(
    encoder: Encoder,
    denoiser: Denoiser,
    schedule: Schedule,
    normalizer: Normalizer | None,
    *,
    horizon: int,
    sampler: Sampler,
    num_steps: int,
    spacing: str = "auto",
    prediction_type: str = "epsilon",
    clip: float = 1.0,
    mask_padding: bool = False,
    unroll: int = 1,
    warm_start: float = 0.0,
    agree: agreement.Agreement | None = None,
    sampling_loop: Callable[..., Array] = sampling.sample,
    conditioning: Conditioning = on_features,
) -> Policy:
    """A Diffusion Policy (Chi et al. 2023).

    normalizer: `init` stores it in params, where `loss` and `sample` read it; None for a policy
        whose params exist already.
    horizon: Tp. num_steps: S.
    spacing: the spacing of the path's steps; "auto" leaves the choice to the sampler.
    prediction_type: what the denoiser predicts, a name in `parameterization.PREDICTION_TYPES`.
    clip: bound of |x̂_0| in network units while sampling.
    mask_padding: whether the loss ignores steps that repeat the edge of an episode.
    unroll: how many evaluations one iteration of the compiled sampling loop holds.
    warm_start: the share of the path, in [0, 1), that examples with a previous action chunk
        skip.
    agree: how chunks agree with the previous ones, see `agreement`; None if they do not.
    sampling_loop: `sampling.sample`, or `sampling.trace` for a policy whose `sample` returns the
        actions after every step, [S, B, Tp, Da].
    conditioning: `(actions [B, Tp, Da], features [B, T, F]) -> Problem`, see `conditioning`.

    Raises UserError if the schedule has no such path, or if the prediction type does not
    determine the data everywhere on it.
    """
    # The path is fixed here: levels are constants of the compiled program.
    path = schedule.path(num_steps, sampler.spacing if spacing == "auto" else spacing)
    parameterization.check_prediction_type(prediction_type, path)
    return Policy(
        init=diffusion_init(
            encoder, denoiser, conditioning, normalizer, time_shape=path.now.t.shape[1:]
        ),
        loss=diffusion_loss(
            encoder, denoiser, conditioning, schedule, prediction_type, mask_padding
        ),
        sample=diffusion_sample(
            encoder,
            denoiser,
            conditioning,
            path,
            prediction_type,
            horizon,
            sampling_loop,
            # k of the warm start. At least one step is always taken.
            skipped=min(round(warm_start * num_steps), num_steps - 1),
            agree=agree,
            options=dict(sampler=sampler, clip=clip, unroll=unroll),
        ),
    )


def diffusion_init(
    encoder: Encoder,
    denoiser: Denoiser,
    conditioning: Conditioning,
    normalizer: Normalizer | None,
    time_shape: tuple[int, ...],
) -> Init:
    """`init` of a Policy. time_shape: () for a denoiser with one time per level, (2,) for two."""

    def init(rng: PRNGKey, batch: Batch) -> Params:
        assert normalizer is not None, "a policy without a normalizer can only be loaded"
        encoder_rng, denoiser_rng = jax.random.split(rng)
        # 1. The encoder first, because the denoiser's input has the shape of its features.
        obs = normalizer.normalize(encoder.view(batch.obs))
        params = {"encoder": encoder.init(encoder_rng, obs), "normalizer": normalizer}
        # 2. The denoiser. Only shapes matter here, so any time will do.
        problem = batch_problem(encoder, conditioning, params, batch)
        t = jnp.zeros((len(problem.x0), *time_shape), jnp.int32)
        params["denoiser"] = denoiser.init(denoiser_rng, problem.x0, t, problem.cond)
        return params

    return init


def diffusion_loss(
    encoder: Encoder,
    denoiser: Denoiser,
    conditioning: Conditioning,
    schedule: Schedule,
    prediction_type: str,
    mask_padding: bool,
) -> Loss:
    """`loss` of a Policy: the squared error of the prediction (Chi et al. 2023, eq. 5)."""

    def loss(params: Params, rng: PRNGKey, batch: Batch) -> tuple[Array, Metrics]:
        # Keys [B] for each of four purposes; examples are independent of each other.
        keys = split_keys(example_keys(rng, batch.index), 4)
        level_keys, noise_keys, dropout_keys, obs_keys = keys

        # 1. The clean data, and the data with noise, at a random level per example.
        problem = batch_problem(encoder, conditioning, params, batch, obs_keys)
        level, eps = sampling.draw(schedule, level_keys, noise_keys, problem.x0.shape[1:])
        x = problem.insert_known(parameterization.add_noise(problem.x0, eps, level))

        # 2. The network's prediction.
        context = denoiser.prepare(params["denoiser"], problem.cond, level.t, dropout_keys)
        y = denoiser.apply(params["denoiser"], x, context, dropout_keys)  # [B, Tp, D]

        # 3. The squared error. It is 0 at known entries, but the mean counts them.
        error = y - parameterization.prediction(prediction_type, problem.x0, eps, level)
        error = jnp.square(problem.mask_known(error)).mean(-1)  # [B, Tp]
        # [B, Tp], 0 for steps that are left out.
        weight = batch.mask.astype(error.dtype) if mask_padding else jnp.ones_like(error)
        return jnp.sum(error * weight), {"weight": jnp.sum(weight)}

    return loss


def diffusion_sample(
    encoder: Encoder,
    denoiser: Denoiser,
    conditioning: Conditioning,
    path: Path,
    prediction_type: str,
    horizon: int,
    sampling_loop: Callable[..., Array],
    skipped: int,
    agree: agreement.Agreement | None,
    options: dict[str, Any],
) -> Sample:
    """`sample` of a Policy.

    skipped: how many steps a warm start skips.
    agree: see `diffusion_policy`.
    options: further arguments of `sampling_loop`.
    """

    def sample(
        params: Params,
        rng: PRNGKey,
        obs: Observation,
        previous: Array | None = None,
        committed: Array | None = None,
    ) -> Array:
        # 1. What does not depend on x: the features, and the denoiser's part for all levels.
        features = encode(encoder, params, obs)  # [B, T, F]
        action_dim = params["normalizer"].offset[ACTION].shape[-1]
        batch_size = features.shape[0]  # not len(): in an exported program it is symbolic
        # There are no actions yet: zeros have their shape.
        unknown = jnp.zeros((batch_size, horizon, action_dim), features.dtype)
        problem = conditioning(unknown, features)
        context = denoiser.prepare(params["denoiser"], problem.cond, jnp.asarray(path.now.t))

        # 2. Noise to start from. A single rng is folded into one key per example.
        keys = example_keys(rng, jnp.arange(batch_size)) if rng.ndim == 0 else rng
        start_keys, step_keys = split_keys(keys, 2)  # [B] each
        noise = sampling.draw_noise(start_keys, problem.x0.shape[1:])

        # 3. The sampling loop. It may start from the previous chunk (7), and agree with it.
        predict = _predictor(denoiser, params["denoiser"], problem, context, prediction_type)
        loop = sampling_loop
        if previous is not None and (skipped or agree is not None):
            last = params["normalizer"].normalize({ACTION: previous})[ACTION]
            if skipped:
                loop = sampling.warm_start(sampling_loop, last, skipped)
            if agree is not None:
                observed = next(iter(obs.values())).shape[1]  # To
                predict = agreement.agree(
                    agree, predict, last, committed, observed, problem.x0.shape[-1], path
                )
        # [B, Tp, D]; of every step with `sampling.trace`.
        x0 = loop(predict, noise, path, step_keys, prepared=context.per_level, **options)
        # 4. Back to data units. With inpainting, x also holds observations, which are dropped.
        return params["normalizer"].restore(ACTION, x0[..., :action_dim])

    return sample


def _predictor(
    denoiser: Denoiser, params: Any, problem: Problem, context: Context, prediction_type: str
) -> sampling.Predict:
    """The function `(x, level, per_level) -> Estimate` that the sampling loop evaluates."""

    def predict(x: Array, level: Level, per_level: Any) -> Estimate:
        # The loop changes all of x, so known entries are written into it before every evaluation.
        x = problem.insert_known(x)
        # `per_level` is the slice of this level; `shared` stays outside of the loop.
        y = denoiser.apply(params, x, Context(per_level, context.shared))
        return parameterization.estimate(prediction_type, y, x, level)

    return predict
