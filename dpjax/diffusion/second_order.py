"""Samplers of second order: half the step, a quarter of the error.

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

import jax
import jax.numpy as jnp
import numpy as np

from dpjax.diffusion.samplers import Sampler, Turns
from dpjax.diffusion.schedules import Path

Array = jax.Array


def dpm_solver() -> Sampler:
    """DPM-Solver++(2M), "midpoint", `lower_order_final`: as diffusers has it."""
    extrapolated = lambda path: Turns(path.now, path.to, extrapolation(path))
    return Sampler(None, rederive_eps=True, mixes="x0", turns=extrapolated)


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
    return Sampler(None, rederive_eps=True, mixes="x", turns=twice, spacing="trailing")


def twice(path: Path) -> Turns:
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
    return Turns(now, to, weight=jnp.where(second, -0.5, 0.0), step=step, done=done)
