"""Samplers of second order: half the step, a quarter of the error.

DDIM is the Euler method of the probability-flow ODE (Song et al. 2021), whose error
falls with the first power of the number of steps. DPM-Solver++(2M) (Lu et al. 2022,
algorithm 2) gets the second power from the evaluation of the step before: with
λ = log(α/σ) and h = λ_s - λ_t,

    x̂_0 ← x̂_0 + h / (2 h₋) (x̂_0 - x̂_0₋),    and then (4) with γ = 0;        (5)

one evaluation a step, and first order where there is no step before or λ ends.
"""

import jax
import jax.numpy as jnp

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
