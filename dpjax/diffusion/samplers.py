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

Samplers of second order: half the step, a quarter of the error.

DDIM is the Euler method of the probability-flow ODE (Song et al. 2021), whose error
falls with the first power of the number of steps. DPM-Solver++(2M) (Lu et al. 2022,
algorithm 2) gets the second power from the evaluation of the step before: with
λ = log(α/σ) and h = λ_s - λ_t,

    x̂_0 ← x̂_0 + h / (2 h₋) (x̂_0 - x̂_0₋),    and then (4) with γ = 0;        (5)

one evaluation a step, and first order where there is no step before or λ ends.

Heun's method (Karras et al. 2022, algorithm 1, without churn) asks twice a step: at the
end of the Euler step it takes the mean of both slopes. Along the straight line between
the two levels, on which the slope is dx/dτ = Δα x̂_0 + Δσ ε̂ and Euler is DDIM,

    x' = x + Δα x̂_0 + Δσ ε̂                  at t; this is (4);               (6)
    x_s = x + ½ (x' - x) + ½ (Δα x̂_0' + Δσ ε̂')    asked at s, of x'.

For α = 1 that is the paper's algorithm and for α = 1 - t, σ = t Heun's in t; for others
the line only stands for the arc: the ODE's solution depends on σ/α alone. In the paper's
own variables x/α and σ/α the first step from almost pure noise has a length of 1/α (2e4
for the cosine), and here 1.
"""

from typing import Callable, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dpjax.diffusion.schedules import Level, Path

Array = jax.Array
INF = float("inf")


class Evaluations(NamedTuple):
    """A walk as the N evaluations of the network that it takes, in order.

    now, to: Level [N], where the network is asked and where (4) leads from there.
    weight: [N], w of `Sampler.extrapolate`; None where nothing is remembered.
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
    extrapolate: "x0" or "x", the a of a ← a + w (a - a₋): x̂_0 before the step (4), or x after
        it, with what it was a turn ago; "" extrapolate nothing.
    evaluations: `path -> Evaluations`: one evaluation a step, or more.
    spacing: of the path's steps where nobody asked for one (`schedules.spaced_steps`).
    """

    fresh_noise: Callable[[Level, Level], Array] | None
    rederive_eps: bool
    extrapolate: str = ""
    evaluations: Callable[[Path], Evaluations] = lambda path: Evaluations(path.now, path.to)
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


Array = jax.Array


def dpm_solver() -> Sampler:
    """DPM-Solver++(2M), "midpoint", `lower_order_final`: as diffusers has it."""
    extrapolated = lambda path: Evaluations(path.now, path.to, extrapolation(path))
    return Sampler(None, rederive_eps=True, extrapolate="x0", evaluations=extrapolated)


def extrapolation(path: Path) -> Array:
    """h / (2 h₋) of equation (5), [S]; 0 in the first step and where a λ is infinite."""
    log_snr = lambda level: jnp.log(level.alpha) - jnp.log(level.sigma)
    now = log_snr(path.now)
    h, before = log_snr(path.to) - now, jnp.diff(now, prepend=-jnp.inf)
    usable = jnp.isfinite(h) & jnp.isfinite(before)
    return jnp.where(usable, h / (2 * jnp.where(usable, before, 1.0)), 0.0)


def heun() -> Sampler:
    """Heun's method, equation (6): 2 S - 1 evaluations, the last step is Euler's.

    It has no published result to agree with that walks leading steps, which give it pure
    noise at a level that has less: five start at level 80 of 100.
    """
    return Sampler(None, rederive_eps=True, extrapolate="x", evaluations=twice, spacing="trailing")


def twice(path: Path) -> Evaluations:
    """Every step a turn to its end and a turn from there, which (6) averages.

    The second turn is asked at s, and as x' + Δα x̂_0' + Δσ ε̂' is equation (4) with a
    goal as far beyond s as t is before it, it is a turn like any other. It takes what was
    prepared for the step that starts at s, so the path must be a chain.
    """
    num_steps = len(path.now.t)
    step = np.repeat(np.arange(num_steps), 2)[1:]  # 0, 1, 1, 2, 2, …: whose level it is
    second = np.arange(len(step)) % 2 == 1
    of = step - second  # 0, 0, 1, 1, …: the step that the turn is a part of
    now, start, end = path.now[step], path.now[of], path.to[of]
    beyond = jax.tree.map(lambda s, t: 2 * s - t, end, start)
    to = jax.tree.map(lambda a, b: jnp.where(second, a, b), beyond, end)
    done = np.append(np.flatnonzero(second), len(step) - 1)
    return Evaluations(now, to, weight=jnp.where(second, -0.5, 0.0), step=step, done=done)
