"""The sampling loop: from noise to data along a path, from the start or from the last chunk.

The loop is one `lax.scan` over the evaluations of the network, whatever their number.

Warm start: between two observations the best actions change little. So the last action chunk,
moved to the present and made noisy again, can replace the first k steps of the path (Janner et
al. 2022, sec. 5.4):

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
    # 1. The two halves of x: the clipped data, and the noise that goes with it.
    x0 = jnp.clip(estimate.x0, -clip, clip)
    eps = (x - now.alpha * x0) / now.sigma if sampler.rederive_eps else estimate.eps
    if sampler.x0_as_eps:
        eps = estimate.x0
    # 2. Both at the next level. Without fresh noise γ is 0, and nothing is drawn.
    if sampler.fresh_noise is None:
        return to.alpha * x0 + to.sigma * eps
    gamma = sampler.fresh_noise(now, to)
    # 3. γ of the noise is drawn afresh, so that its total std stays σ_s.
    kept = jnp.sqrt(jnp.maximum(to.sigma**2 - gamma**2, 0.0))
    return to.alpha * x0 + kept * eps + gamma * draw()


def draw_noise(keys: Array, shape: tuple[int, ...]) -> Array:
    """Noise [B, *shape] from N(0, 1), that of each example from its own key of keys [B]."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def draw(
    schedule: Schedule, level_keys: Array, noise_keys: Array, shape: tuple[int, ...]
) -> tuple[Level, Array]:
    """For training: a noise level [B] and noise [B, *shape], each example's from its keys."""
    # One draw per key, so that an example does not depend on the others in its batch.
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
) -> Array:
    """The sampling loop: x [B, Tp, D] from the path's first level to its last.

    predict: `(x, level) -> Estimate`; if `prepared` is given, `(x, level, prepared[i])` in
        step i.
    x: [B, Tp, D] noise at the path's first level.
    path: S steps.
    keys: [B], one per example; evaluation i draws its noise from `fold_in(key, first + i)`.
    prepared: a tree with leaves [S, …], what the denoiser has computed for each step.
    unroll: how many evaluations one iteration of the compiled loop holds.
    first: the number of the first evaluation, if this path is the end of a longer one.
    """
    evaluate = _evaluation(predict, keys, sampler, clip)
    inputs = _inputs(sampler.evaluations(path), prepared, first)

    def body(carry: tuple, inputs: tuple) -> tuple[tuple, None]:
        return evaluate(carry, inputs), None

    length = len(inputs[0])
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
    """The same loop as `sample`, returning x after every step: [S, B, Tp, D]."""
    evaluate = _evaluation(predict, keys, sampler, clip)
    evaluations = sampler.evaluations(path)
    inputs = _inputs(evaluations, prepared)

    def body(carry: tuple, inputs: tuple) -> tuple[tuple, Array]:
        carry = evaluate(carry, inputs)
        return carry, carry[0]

    length = len(inputs[0])
    _, xs = jax.lax.scan(body, _carry(sampler, x), inputs, unroll=min(unroll, length))
    return xs if evaluations.last is None else xs[evaluations.last]


def _carry(sampler: Sampler, x: Array) -> tuple[Array, Array | None]:
    """The loop's state: x, and the previous value of what the sampler extrapolates.

    Before the first evaluation there is no such value. Its weight is 0 there.
    """
    return x, (jnp.zeros_like(x) if sampler.extrapolate else None)


def _inputs(evaluations: Evaluations, prepared: Any, first: int = 0) -> tuple:
    """What the loop's iterations take, leaves [N, …]."""
    if evaluations.step is not None:
        # Several evaluations use what was prepared for one level.
        prepared = jax.tree.map(lambda leaf: leaf[evaluations.step], prepared)
    # The evaluation's number in the whole path, from which its noise is drawn.
    number = jnp.arange(first, first + evaluations.now.t.shape[0])
    return number, evaluations.now, evaluations.to, evaluations.weight, prepared


def _evaluation(
    predict: Predict, keys: Array, sampler: Sampler, clip: float
) -> Callable[[tuple, tuple], tuple]:
    """One iteration of the loop: `((x, before), inputs) -> (x, before)`."""

    def evaluate(carry: tuple, inputs: tuple) -> tuple:
        x, before = carry
        i, now, to, weight, prepared = inputs
        # What the network says at this level.
        estimate = predict(x, now) if prepared is None else predict(x, now, prepared)

        # Called during tracing, and only by samplers with fresh noise.
        def draw() -> Array:
            step_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, i)
            return draw_noise(step_keys, x.shape[1:])

        if sampler.extrapolate == "x0":
            # Equation (5). The clipped x̂_0 is extrapolated, and the result is not clipped again.
            x0 = jnp.clip(estimate.x0, -clip, clip)
            extrapolated = Estimate(x0=x0 + weight * (x0 - before), eps=estimate.eps)
            return step(sampler, x, extrapolated, now, to, draw, INF), x0
        new = step(sampler, x, estimate, now, to, draw, clip)
        if sampler.extrapolate == "x":
            # Equation (6): `before` is the x at the start of the step.
            return new + weight * (new - before), x
        return new, before

    return evaluate


def warm_start(sampling_loop: Callable[..., Array], last: Array, skipped: int) -> SamplingLoop:
    """`sampling_loop` (`sample`) that starts from the last chunk where there is one.

    last: [B, Tp, D] the last chunk in network units, moved to the present; NaN in the steps
        that it does not reach, and in all steps of an example that has no last chunk.
    skipped: k of (7), at least 1. Examples without a last chunk take all steps. If every
        example has one, the first k steps are not computed. A sampler of second order starts
        again at step k, with a step of first order.
    """

    def warm(predict, x, path, keys, *, prepared=None, **options):  # type: ignore[no-untyped-def]
        # The steps before and after step k, with what was prepared for each of them.
        head, head_prepared = jax.tree.map(lambda leaf: leaf[:skipped], (path, prepared))
        tail, tail_prepared = jax.tree.map(lambda leaf: leaf[skipped:], (path, prepared))
        x0, has_last = extend(last)

        def from_noise(x: Array) -> Array:
            return sampling_loop(predict, x, head, keys, prepared=head_prepared, **options)

        # x at step k: the noisy last chunk (7), or what the first k steps make of the noise.
        warmed = parameterization.add_noise(x0, x, tail.now[0])
        cold = jax.lax.cond(has_last.all(), lambda x: x, from_noise, x)
        x = jnp.where(parameterization.expand(has_last, x), warmed, cold)
        return sampling_loop(
            predict, x, tail, keys, prepared=tail_prepared, first=skipped, **options
        )

    return warm


def extend(last: Array) -> tuple[Array, Array]:
    """Chunks [B, Tp, D] whose NaN steps repeat the last known step, and bool [B]: any known."""
    num_known = jnp.isfinite(last).all(-1).sum(-1)  # [B], they are the first ones
    # [B, Tp], the step to read: itself where it is known, otherwise the last known one.
    step = jnp.clip(jnp.arange(last.shape[1]), 0, jnp.maximum(num_known - 1, 0)[:, None])
    has_last = num_known > 0
    repeated = jnp.take_along_axis(last, step[..., None], axis=1)
    return jnp.where(parameterization.expand(has_last, last), repeated, 0.0), has_last
