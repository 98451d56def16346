"""Warm start: a plan begins with the last one, and only the end of the path is walked.

Between two looks the best plan changes little, so the last one, moved to the present and
made noisy again, stands in for the first steps of the path (Janner et al. 2022, sec. 5.4):

    x = α_k x_0 + σ_k ε,    then the steps k … S - 1 as ever.               (7)
"""

from typing import Callable

import jax
import jax.numpy as jnp

from dpjax.diffusion import parameterization
from dpjax.diffusion.parameterization import Estimate
from dpjax.diffusion.samplers import INF, Array, Sampler
from dpjax.diffusion.schedules import Level, Path, Schedule

Predict = Callable[[Array, Level], Estimate]


def step(
    sampler: Sampler, x: Array, estimate: Estimate, now: Level, to: Level, draw, clip: float
) -> Array:
    """Equation (4): x [B, Tp, Da] at `now` -> x at `to`.

    draw: `() -> z [B, Tp, Da]`, the fresh noise; not called where there is none.
    clip: bound of |x̂_0|; infinity leaves it as predicted.
    """
    x0 = jnp.clip(estimate.x0, -clip, clip)
    eps = (x - now.alpha * x0) / now.sigma if sampler.rederive_eps else estimate.eps
    if sampler.x0_as_eps:
        eps = estimate.x0
    if sampler.fresh_noise is None:
        return to.alpha * x0 + to.sigma * eps
    gamma = sampler.fresh_noise(now, to)
    kept = jnp.sqrt(jnp.maximum(to.sigma**2 - gamma**2, 0.0))
    return to.alpha * x0 + kept * eps + gamma * draw()


def draw_noise(keys: Array, shape: tuple[int, ...]) -> Array:
    """N(0, 1) of [B, *shape] from keys [B]: a row's noise is its own key's alone."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def draw(
    schedule: Schedule, level_keys: Array, noise_keys: Array, shape: tuple[int, ...]
) -> tuple[Level, Array]:
    """A noise level [B] and noise [B, *shape], each row's from its own keys."""
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
    each_step=None,
    unroll: int = 1,
    first: int = 0,
) -> Array:
    """Walks x from noise to data: one `lax.scan`, whatever the number of steps.

    predict: `(x [B, Tp, Da], level) -> Estimate`; with `each_step` given,
        `(x, level, each_step[i])`.
    x: [B, Tp, Da] noise of the path's first level.
    path: S steps.
    keys: [B], one a row; turn i draws from `fold_in(key, first + i)`.
    each_step: a tree with leaves [S, …], what the predictor has prepared for each step.
    unroll: evaluations that one iteration of the compiled loop holds.
    first: the number of this path's first turn, where it is the end of another.
    """
    body = _body(predict, keys, sampler, clip)
    inputs = _inputs(sampler.evaluations(path), each_step, first)
    turn = lambda carry, inputs: (body(carry, inputs), None)
    (x, _), _ = jax.lax.scan(turn, _carry(sampler, x), inputs, unroll=min(unroll, len(inputs[0])))
    return x


def trace(predict, x, path, keys, *, sampler, clip=INF, each_step=None, unroll=1) -> Array:
    """`sample`, and what it passes through: x after every step, [S, B, Tp, Da]."""
    body = _body(predict, keys, sampler, clip)
    evaluations = sampler.evaluations(path)
    inputs = _inputs(evaluations, each_step)

    def turn(carry, inputs):
        carry = body(carry, inputs)
        return carry, carry[0]

    _, xs = jax.lax.scan(turn, _carry(sampler, x), inputs, unroll=min(unroll, len(inputs[0])))
    return xs if evaluations.done is None else xs[evaluations.done]


def _carry(sampler, x):
    """x, and what is remembered of a turn before the first: nothing, whose weight is 0."""
    return x, (jnp.zeros_like(x) if sampler.extrapolate else None)


def _inputs(evaluations, each_step, first=0):
    """What the loop gets turn by turn, leaves [N, …]."""
    if evaluations.step is not None:
        each_step = jax.tree.map(lambda leaf: leaf[evaluations.step], each_step)
    turn = jnp.arange(first, first + evaluations.now.t.shape[0])
    return turn, evaluations.now, evaluations.to, evaluations.weight, each_step


def _body(predict, keys, sampler, clip):
    """`((x, before), (i, now, to, weight, prepared)) -> (x, before)`: one turn of the loop."""

    def body(carry, inputs):
        x, before = carry
        i, now, to, weight, prepared = inputs
        estimate = predict(x, now) if prepared is None else predict(x, now, prepared)

        def draw():
            row = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, i)
            return draw_noise(row, x.shape[1:])

        if sampler.extrapolate == "x0":
            x0 = jnp.clip(estimate.x0, -clip, clip)
            mixed = estimate.replace(x0=x0 + weight * (x0 - before))
            return step(sampler, x, mixed, now, to, draw, INF), x0
        new = step(sampler, x, estimate, now, to, draw, clip)
        if sampler.extrapolate == "x":
            return new + weight * (new - before), x
        return new, before

    return body


Array = jax.Array


def warm_start(sampling_loop, last: Array, skipped: int):
    """`sampling_loop` (`samplers.sample`) for rows that have a last plan and rows that have none.

    last: [B, Tp, D] x_0 in network units, moved to the present; NaN from the step on of
        which nothing is known, and in all steps of a row without a plan.
    skipped: k of (7), at least 1. A row without a plan walks all steps; where every row
        has one, the first k are not computed. Of second order, the sampling_loop begins anew at k.
    """

    def warm(predict, x, path, keys, *, each_step=None, **options):
        head = jax.tree.map(lambda leaf: leaf[:skipped], (path, each_step))
        tail = jax.tree.map(lambda leaf: leaf[skipped:], (path, each_step))
        x0, known = extended(last)

        def from_noise(x):
            return sampling_loop(predict, x, head[0], keys, each_step=head[1], **options)

        begun = parameterization.add_noise(x0, x, tail[0].now[0])
        cold = jax.lax.cond(known.all(), lambda x: x, from_noise, x)
        x = jnp.where(parameterization.expand(known, x), begun, cold)
        return sampling_loop(predict, x, tail[0], keys, each_step=tail[1], first=skipped, **options)

    return warm


def extended(last: Array) -> tuple[Array, Array]:
    """[B, Tp, D] whose NaN steps repeat the last known one, and the rows [B] that know any."""
    steps = jnp.isfinite(last).all(-1).sum(-1)  # [B]
    index = jnp.clip(jnp.arange(last.shape[1]), 0, jnp.maximum(steps - 1, 0)[:, None])
    known = steps > 0
    repeated = jnp.take_along_axis(last, index[..., None], axis=1)
    return jnp.where(parameterization.expand(known, last), repeated, 0.0), known
