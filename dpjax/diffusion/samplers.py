"""Samplers: walk a path of noise levels down to the data.

One step of every sampler here is

    x_s = α_s x̂_0 + sqrt(σ_s² - γ²) ε̂ + γ z,    z ~ N(0, I),                (4)

and they differ in γ, the part of the noise that is drawn afresh, and in which ε̂
goes with a clipped x̂_0:

    DDIM (Song et al. 2021)      γ = 0            the network's own ε̂
    DDIM(η)                      γ = η std(q)     the network's own ε̂
    DDPM (Ho et al. 2020)        γ = std(q)       ε̂ = (x - α x̂_0)/σ of the clipped x̂_0

with std(q) the std of q(x_s | x_t, x_0), DDPM eq. 7. Both choices are diffusers'
("use_clipped_model_output" False; the posterior mean), and so are the numbers. What is
of second order (`dpjax.diffusion.second_order`) also remembers the turn before.
"""

from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp

from dpjax.diffusion.schedules import Level, Path, Schedule
from dpjax.diffusion.targets import Estimate

Array = jax.Array
Predict = Callable[[Array, Level], Estimate]
INF = float("inf")


class Turns(NamedTuple):
    """A walk as the N evaluations of the network that it takes, in order.

    now, to: Level [N], where the network is asked and where (4) leads from there.
    weight: [N], w of `Sampler.mixes`; None where nothing is remembered.
    step: int [N], the step of the path whose `now` it is; None: turn i is step i.
    done: int [S], the turn that ends each step; None: turn i ends step i.
    """

    now: Level
    to: Level
    weight: Array | None = None
    step: Array | None = None
    done: Array | None = None


class Sampler(NamedTuple):
    """What makes a sampler, apart from the path.

    fresh_noise: `(now, to) -> γ`, the std of the noise drawn afresh in a step; None
        draws nothing.
    rederive_eps: True where ε̂ follows the clipped x̂_0, False where it is the network's.
    x0_as_eps: True where the network's x̂_0 is taken for ε̂ (`dpjax.diffusion.published`).
    mixes: "x0" or "x", the a of a ← a + w (a - a₋): x̂_0 before the step (4), or x after
        it, with what it was a turn ago; "" mixes nothing.
    turns: `path -> Turns`: one evaluation a step, or more.
    spacing: of the path's steps where nobody asked for one (`schedules.spaced_steps`).
    """

    fresh_noise: Callable[[Level, Level], Array] | None
    rederive_eps: bool
    mixes: str = ""
    turns: Callable[[Path], Turns] = lambda path: Turns(path.now, path.to)
    x0_as_eps: bool = False
    spacing: str = "auto"


def posterior_std(now: Level, to: Level) -> Array:
    """std of q(x_s | x_t, x_0): DDPM eq. 7, for any (α, σ); 0 in the last step."""
    variance = now.sigma**2 - (now.alpha / to.alpha) ** 2 * to.sigma**2
    return to.sigma / now.sigma * jnp.sqrt(jnp.maximum(variance, 0.0))


def ddpm() -> Sampler:
    """Ancestral sampling, variance "fixed_small" (Ho et al. 2020, algorithm 2)."""
    return Sampler(posterior_std, rederive_eps=True)


def ddim(eta: float = 0.0) -> Sampler:
    """Denoising diffusion implicit models (Song et al. 2021, eq. 12 and 16)."""
    fresh_noise = (lambda now, to: eta * posterior_std(now, to)) if eta else None
    return Sampler(fresh_noise, rederive_eps=False)


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


def draw_rows(keys: Array, shape: tuple[int, ...]) -> Array:
    """N(0, 1) of [B, *shape] from keys [B]: a row's noise is its own key's alone."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def draw(
    schedule: Schedule, level_keys: Array, noise_keys: Array, shape: tuple[int, ...]
) -> tuple[Level, Array]:
    """A noise level [B] and noise [B, *shape], each row's from its own keys."""
    level = jax.vmap(lambda key: schedule.draw(key, ()))(level_keys)
    return level, draw_rows(noise_keys, shape)


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
    unroll: turns that one iteration of the compiled loop holds.
    first: the number of this path's first turn, where it is the end of another.
    """
    body = _body(predict, keys, sampler, clip)
    inputs = _inputs(sampler.turns(path), each_step, first)
    turn = lambda carry, inputs: (body(carry, inputs), None)
    (x, _), _ = jax.lax.scan(turn, _carry(sampler, x), inputs, unroll=min(unroll, len(inputs[0])))
    return x


def trace(predict, x, path, keys, *, sampler, clip=INF, each_step=None, unroll=1) -> Array:
    """`sample`, and what it passes through: x after every step, [S, B, Tp, Da]."""
    body = _body(predict, keys, sampler, clip)
    turns = sampler.turns(path)
    inputs = _inputs(turns, each_step)

    def turn(carry, inputs):
        carry = body(carry, inputs)
        return carry, carry[0]

    _, xs = jax.lax.scan(turn, _carry(sampler, x), inputs, unroll=min(unroll, len(inputs[0])))
    return xs if turns.done is None else xs[turns.done]


def _carry(sampler, x):
    """x, and what is remembered of a turn before the first: nothing, whose weight is 0."""
    return x, (jnp.zeros_like(x) if sampler.mixes else None)


def _inputs(turns, each_step, first=0):
    """What the loop gets turn by turn, leaves [N, …]."""
    if turns.step is not None:
        each_step = jax.tree.map(lambda leaf: leaf[turns.step], each_step)
    turn = jnp.arange(first, first + turns.now.t.shape[0])
    return turn, turns.now, turns.to, turns.weight, each_step


def _body(predict, keys, sampler, clip):
    """`((x, before), (i, now, to, weight, prepared)) -> (x, before)`: one turn of the loop."""

    def body(carry, inputs):
        x, before = carry
        i, now, to, weight, prepared = inputs
        estimate = predict(x, now) if prepared is None else predict(x, now, prepared)

        def draw():
            row = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, i)
            return draw_rows(row, x.shape[1:])

        if sampler.mixes == "x0":
            x0 = jnp.clip(estimate.x0, -clip, clip)
            mixed = estimate.replace(x0=x0 + weight * (x0 - before))
            return step(sampler, x, mixed, now, to, draw, INF), x0
        new = step(sampler, x, estimate, now, to, draw, clip)
        if sampler.mixes == "x":
            return new + weight * (new - before), x
        return new, before

    return body
