"""The sampling loop: from noise to data along a path, or from the last action chunk.

The loop is one `lax.scan` over the evaluations of the network, for every sampler.

Warm start: the best actions change little from one observation to the next. So the last action
chunk, shifted to the present and with noise added, can replace the first k steps of the path
(Janner et al. 2022, sec. 5.4):

    x = α_k x_0 + σ_k ε,    then the steps k … S - 1 as usual.              (7)
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from dpjax.diffusion import parameterization
from dpjax.diffusion.parameterization import Estimate
from dpjax.diffusion.samplers import Evaluations, Sampler
from dpjax.diffusion.schedules import Level, Path, Schedule

Array = jax.Array
INF = float("inf")

# `(x [B, Tp, D], level) -> Estimate`, or `(x, level, prepared) -> Estimate`.
Predict = Callable[..., Estimate]


class SamplingLoop(Protocol):
    """A function like `sample` or `trace`: from noise along a path."""

    def __call__(
        self,
        predict: Predict,
        x: Array,
        path: Path,
        keys: Array,
        *,
        sampler: Sampler,
        clip: float = INF,
        prepared: Any = None,
        unroll: int = 1,
    ) -> Array:
        """predict, x [B, Tp, D], path, keys [B] -> x [B, Tp, D] (`trace`: [S, B, Tp, D])."""
        ...


def step(
    sampler: Sampler,
    x: Array,
    estimate: Estimate,
    now: Level,
    to: Level,
    draw: Callable[[], Array],
    clip: float,
) -> Array:
    """Equation (4): x [B, Tp, D] at level `now` -> x at level `to`.

    draw: `() -> z [B, Tp, D]`, fresh noise; called only if the sampler needs it.
    clip: bound of |x̂_0|; infinity does not clip.
    """
    # 1. The two terms of x: the clipped data, and the noise that goes with it.
    x0 = jnp.clip(estimate.x0, -clip, clip)
    eps = (x - now.alpha * x0) / now.sigma if sampler.rederive_eps else estimate.eps
    if sampler.x0_as_eps:
        eps = estimate.x0  # a peculiarity of diffusers 0.11
    # 2. Without fresh noise γ is 0: both terms are scaled to the next level.
    if sampler.fresh_noise is None:
        return to.alpha * x0 + to.sigma * eps
    gamma = sampler.fresh_noise(now, to)
    # 3. With fresh noise of std γ, less of the old noise is kept: the total std must be σ_s.
    kept = jnp.sqrt(jnp.maximum(to.sigma**2 - gamma**2, 0.0))
    return to.alpha * x0 + kept * eps + gamma * draw()


def draw_noise(keys: Array, shape: tuple[int, ...]) -> Array:
    """Noise [B, *shape] from N(0, 1), one key of keys [B] per example."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def draw(
    schedule: Schedule, level_keys: Array, noise_keys: Array, shape: tuple[int, ...]
) -> tuple[Level, Array]:
    """For training: noise levels [B] and noise [B, *shape], one key of each kind per example."""
    # One draw per key: the noise of an example does not depend on the rest of its batch.
    level = jax.vmap(lambda key: schedule.draw(key, ()))(level_keys)
    return level, draw_noise(noise_keys, shape)


def sample(
    predict: Predict,
    x: Array,
    path: Path,
    keys: Array,
    *,
    sampler: Sampler,
    clip: float = INF,
    prepared: Any = None,
    unroll: int = 1,
    first: int = 0,
    noise: Array | None = None,
) -> Array:
    """The sampling loop: x [B, Tp, D] from the path's first level to its last.

    predict: `(x, level) -> Estimate`; if `prepared` is given, `(x, level, prepared[i])` in
        step i.
    x: [B, Tp, D] noise at the path's first level.
    path: S steps.
    keys: [B], one per example; evaluation i draws its noise from `fold_in(key, first + i)`.
    prepared: what the denoiser has computed for each step, a tree with leaves [S, …].
    unroll: how many evaluations one iteration of the compiled loop holds.
    first: the number of the first evaluation, if this path is the end of a longer one.
    noise: [N, B, Tp, D] of each evaluation, in place of what keys draw; None draws it.
    """
    evaluate = _evaluation(predict, keys, sampler, clip, noise)
    inputs = _inputs(sampler.evaluations(path), prepared, first)

    def body(carry: tuple, inputs: tuple) -> tuple[tuple, None]:
        return evaluate(carry, inputs), None  # scan keeps no output per iteration

    length = len(inputs[0])  # N, the number of evaluations
    (x, _), _ = jax.lax.scan(body, _carry(sampler, x), inputs, unroll=min(unroll, length))
    return x


def trace(
    predict: Predict,
    x: Array,
    path: Path,
    keys: Array,
    *,
    sampler: Sampler,
    clip: float = INF,
    prepared: Any = None,
    unroll: int = 1,
) -> Array:
    """The same loop as `sample`, but returns x after every step: [S, B, Tp, D]."""
    evaluate = _evaluation(predict, keys, sampler, clip)
    evaluations = sampler.evaluations(path)
    inputs = _inputs(evaluations, prepared)

    def body(carry: tuple, inputs: tuple) -> tuple[tuple, Array]:
        carry = evaluate(carry, inputs)
        return carry, carry[0]  # x is also an output, which scan stacks

    length = len(inputs[0])  # N
    _, xs = jax.lax.scan(body, _carry(sampler, x), inputs, unroll=min(unroll, length))
    # [N, B, Tp, D] -> [S, B, Tp, D]: only the evaluations that end a step.
    return xs if evaluations.last is None else xs[evaluations.last]


def _carry(sampler: Sampler, x: Array) -> tuple[Array, Array | None]:
    """The loop's state: x, and the previous value of what the sampler extrapolates."""
    # The first evaluation has no previous value, and its weight is 0: any finite value will do.
    return x, (jnp.zeros_like(x) if sampler.extrapolate else None)


def _inputs(evaluations: Evaluations, prepared: Any, first: int = 0) -> tuple:
    """The inputs of all iterations of the loop, a tuple of trees with leaves [N, …]."""
    if evaluations.step is not None:
        # Several evaluations use what was prepared for one step: [S, …] -> [N, …].
        prepared = jax.tree.map(lambda leaf: leaf[evaluations.step], prepared)
    # The number of each evaluation in the whole path: its noise is drawn from it.
    number = jnp.arange(first, first + evaluations.now.t.shape[0])
    return number, evaluations.now, evaluations.to, evaluations.weight, prepared


def _evaluation(
    predict: Predict, keys: Array, sampler: Sampler, clip: float, noise: Array | None = None
) -> Callable[[tuple, tuple], tuple]:
    """One iteration of the loop: `((x, before), inputs) -> (x, before)`."""

    def evaluate(carry: tuple, inputs: tuple) -> tuple:
        x, before = carry
        i, now, to, weight, prepared = inputs
        # 1. The network's estimate at this level.
        estimate = predict(x, now) if prepared is None else predict(x, now, prepared)

        # 2. Fresh noise. `step` calls this only for samplers that need it, so other samplers
        # compile to a program without a random generator.
        def draw() -> Array:
            if noise is not None:
                return noise[i]
            step_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, i)
            return draw_noise(step_keys, x.shape[1:])

        # 3. The step to the next level. `sampler` is known during tracing: one branch is compiled.
        if sampler.extrapolate == "x0":
            # Equation (5). The clipped x̂_0 is extrapolated, and the result is not clipped again.
            x0 = jnp.clip(estimate.x0, -clip, clip)
            extrapolated = Estimate(x0=x0 + weight * (x0 - before), eps=estimate.eps)
            return step(sampler, x, extrapolated, now, to, draw, INF), x0
        new = step(sampler, x, estimate, now, to, draw, clip)
        if sampler.extrapolate == "x":
            # Equation (6): in a second evaluation, `before` is the x at the start of the step.
            return new + weight * (new - before), x
        return new, before

    return evaluate


def warm_start(sampling_loop: Callable[..., Array], last: Array, skipped: int) -> SamplingLoop:
    """Makes `sampling_loop` (`sample`) start from the last chunk of each example that has one.

    last: [B, Tp, D] the last chunks in network units, shifted to the present; NaN in the steps
        that they do not reach, and in all steps of an example without a last chunk.
    skipped: k of (7), at least 1. Examples without a last chunk take all steps. If every
        example has one, the first k steps are not computed. A second-order sampler starts
        again at step k, with a step of first order.
    """

    def warm(predict, x, path, keys, *, prepared=None, **options):  # type: ignore[no-untyped-def]
        # 1. The path before and after step k, with what was prepared for its steps.
        head, head_prepared = jax.tree.map(lambda leaf: leaf[:skipped], (path, prepared))
        tail, tail_prepared = jax.tree.map(lambda leaf: leaf[skipped:], (path, prepared))
        x0, has_last = extend(last)

        def from_noise(x: Array) -> Array:
            return sampling_loop(predict, x, head, keys, prepared=head_prepared, **options)

        # 2. x at step k: the noisy last chunk (7), or the noise after the first k steps. `cond`
        # computes those steps only if an example needs them.
        warmed = parameterization.add_noise(x0, x, tail.now[0])
        cold = jax.lax.cond(has_last.all(), lambda x: x, from_noise, x)
        x = jnp.where(parameterization.expand(has_last, x), warmed, cold)
        # 3. The remaining steps.
        return sampling_loop(
            predict, x, tail, keys, prepared=tail_prepared, first=skipped, **options
        )

    return warm


def extend(last: Array) -> tuple[Array, Array]:
    """Fills the NaN steps of chunks [B, Tp, D] with their last known step.

    Returns the filled chunks (0 if no step is known), and whether any step is known, bool [B].
    """
    num_known = jnp.isfinite(last).all(-1).sum(-1)  # [B]; the known steps come first
    # [B, Tp], the step to read: known steps read themselves, the others the last known one.
    step = jnp.clip(jnp.arange(last.shape[1]), 0, jnp.maximum(num_known - 1, 0)[:, None])
    has_last = num_known > 0
    repeated = jnp.take_along_axis(last, step[..., None], axis=1)
    return jnp.where(parameterization.expand(has_last, last), repeated, 0.0), has_last
