"""Samplers: how one step leads from a noise level to the next.

One step of every sampler here, from level t to level s, is

    x_s = α_s x̂_0 + sqrt(σ_s² - γ²) ε̂ + γ z,    z ~ N(0, I).                (4)

The samplers differ in γ, the std of the fresh noise z, and in the ε̂ that goes with a clipped
x̂_0:

    DDIM (Song et al. 2021)      γ = 0            the network's ε̂
    DDIM(η)                      γ = η std(q)     the network's ε̂
    DDPM (Ho et al. 2020)        γ = std(q)       ε̂ = (x - α x̂_0)/σ of the clipped x̂_0

Here std(q) is the std of q(x_s | x_t, x_0), DDPM eq. 7. In diffusers the two choices of ε̂ are
`use_clipped_model_output=False` (DDIM) and the posterior mean (DDPM); the results are equal.

Second-order samplers

DDIM is the Euler method for the probability-flow ODE (Song et al. 2021): its error is
proportional to 1/S. The two samplers below have an error proportional to 1/S², because they
also use the previous evaluation.

DPM-Solver++(2M) (Lu et al. 2022, algorithm 2) extrapolates x̂_0. With λ = log(α/σ),
h = λ_s - λ_t and the subscript ₋ for the previous step,

    x̂_0 ← x̂_0 + h / (2 h₋) (x̂_0 - x̂_0₋),    and then (4) with γ = 0.        (5)

It evaluates the network once per step. The first step, and steps where λ is infinite, are of
first order.

Heun's method (Karras et al. 2022, algorithm 1, without churn) evaluates the network twice per
step: at the start and at the end of an Euler step. It then steps along the mean of the two
slopes. On the straight line between the two levels the slope is dx/dτ = Δα x̂_0 + Δσ ε̂, and
the Euler step is DDIM:

    x' = x + Δα x̂_0 + Δσ ε̂                           evaluated at t; this is (4);    (6)
    x_s = x + ½ (x' - x) + ½ (Δα x̂_0' + Δσ ε̂')       evaluated at s, of x'.

For α = 1 this is the paper's algorithm, and for α = 1 - t, σ = t it is Heun's method in t. For
other schedules a straight line replaces the curve of (α, σ). This does not change the solution,
which depends on σ/α alone. The paper's own variables are x/α and σ/α. In them the first step
from almost pure noise has a length of 1/α (2e4 for the cosine schedule); here its length is 1.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dpjax.diffusion.schedules import AnyArray, Level, Path

Array = jax.Array


class Evaluations(NamedTuple):
    """The N network evaluations that a sampler makes on a path of S steps, in order.

    now: Level [N], where the network is evaluated.
    to: Level [N], where equation (4) steps from there.
    weight: [N], the w of `Sampler.extrapolate`; None if the sampler does not extrapolate.
    step: int [N], the step of the path whose `now` is used; None if evaluation i is step i.
    last: int [S], the evaluation that ends each step; None if evaluation i ends step i.
    """

    now: Level
    to: Level
    weight: AnyArray | None = None
    step: np.ndarray | None = None
    last: np.ndarray | None = None


class Sampler(NamedTuple):
    """A sampler, independent of the path that it is used on.

    fresh_noise: `(now, to) -> γ` of equation (4); None for γ = 0.
    rederive_eps: whether ε̂ is computed from the clipped x̂_0; otherwise it is the network's.
    extrapolate: which quantity is combined with its previous value, a + w (a - a_prev):
        "x0" (before the step, multistep solvers), "x" (after the step, Heun) or "" (none).
    evaluations: `path -> Evaluations`, by default one evaluation per step.
    x0_as_eps: whether the network's x̂_0 replaces ε̂ (`diffusers_0_11`).
    spacing: the spacing of the path's steps if the user leaves it at "auto"
        (`schedules.spaced_steps`).
    """

    fresh_noise: Callable[[Level, Level], Array] | None
    rederive_eps: bool
    extrapolate: Literal["", "x0", "x"] = ""
    evaluations: Callable[[Path], Evaluations] = lambda path: Evaluations(path.now, path.to)
    x0_as_eps: bool = False
    spacing: str = "auto"


def posterior_std(now: Level, to: Level) -> Array:
    """The std of q(x_s | x_t, x_0), DDPM eq. 7 for any (α, σ); 0 in the last step."""
    # The part of σ_t² that does not come from the noise of x_s. Rounding can make it slightly
    # negative.
    variance = now.sigma**2 - (now.alpha / to.alpha) ** 2 * to.sigma**2
    # In the last step σ_s = 0, and so is the result.
    return to.sigma / now.sigma * jnp.sqrt(jnp.maximum(variance, 0.0))


def ddpm() -> Sampler:
    """Ancestral sampling, variance "fixed_small" (Ho et al. 2020, algorithm 2)."""
    # With ε̂ of the clipped x̂_0, (4) is the posterior mean of DDPM plus noise.
    return Sampler(posterior_std, rederive_eps=True)


def ddim(eta: float = 0.0) -> Sampler:
    """Denoising diffusion implicit models (Song et al. 2021, eq. 12 and 16).

    eta: 0 is deterministic; 1 draws as much fresh noise as DDPM.
    """
    # η = 0 is None and not a γ of 0, so that the loop draws no noise at all.
    fresh_noise = (lambda now, to: eta * posterior_std(now, to)) if eta else None
    return Sampler(fresh_noise, rederive_eps=False)


def dpm_solver() -> Sampler:
    """DPM-Solver++(2M), equation (5): "midpoint", `lower_order_final`, as in diffusers."""

    # `lower_order_final` needs no code: every path ends at σ = 0, where λ is infinite.
    def evaluations(path: Path) -> Evaluations:
        return Evaluations(path.now, path.to, weight=extrapolation_weight(path))

    # ε̂ is derived from the extrapolated x̂_0, as the solver assumes x_t = α_t x̂_0 + σ_t ε̂.
    return Sampler(None, rederive_eps=True, extrapolate="x0", evaluations=evaluations)


def extrapolation_weight(path: Path) -> Array:
    """h / (2 h₋) of equation (5), [S]; 0 in the first step and where a λ is infinite."""
    # λ is half the log of the signal-to-noise ratio.
    log_snr = lambda level: jnp.log(level.alpha) - jnp.log(level.sigma)
    start = log_snr(path.now)  # λ_t, [S]
    # The step h, and the previous step h₋, which is infinite for the first one: both [S].
    h = log_snr(path.to) - start
    h_before = jnp.diff(start, prepend=-jnp.inf)
    usable = jnp.isfinite(h) & jnp.isfinite(h_before)
    # The inner `where` keeps infinite steps out of the division, which would give NaN.
    return jnp.where(usable, h / (2 * jnp.where(usable, h_before, 1.0)), 0.0)


def heun() -> Sampler:
    """Heun's method, equation (6), with 2 S - 1 evaluations: the last step is Euler's.

    Its steps are "trailing" unless the user sets another spacing. Leading steps start below the
    noisiest level (five of them start at level 80 of 100), although x is pure noise. No published
    result of this sampler depends on them.
    """
    return Sampler(
        None,
        rederive_eps=True,
        extrapolate="x",
        evaluations=heun_evaluations,
        spacing="trailing",
    )


def heun_evaluations(path: Path) -> Evaluations:
    """Two evaluations for each step of the path, but only one for the last step.

    Both evaluations are equation (4). The second one, at s, steps to a level that lies as far
    beyond s as t lies before it, which gives x'' = x' + Δα x̂_0' + Δσ ε̂'. The extrapolation with
    w = -½ then gives the mean of x and x'', which is the x_s of (6). The second evaluation uses
    what the denoiser prepared for the next step, which starts at s too: the path must be a chain.
    """
    num_steps = len(path.now.t)
    # 1. Where the network is evaluated: 0, 1, 1, 2, 2, …, the steps whose starts are used.
    step = np.repeat(np.arange(num_steps), 2)[1:]  # [N]
    # Evaluations 0, 2, 4, … are the first ones of their steps; 1, 3, 5, … are the second ones.
    second = np.arange(len(step)) % 2 == 1  # bool [N], N = 2 S - 1
    # 2. The step that each evaluation is a part of, 0, 0, 1, 1, …, from `start` to `end`.
    part_of = step - second
    start = path.now[part_of]
    end = path.to[part_of]
    # 3. Where each evaluation steps to: s first, then as far beyond s as t lies before it.
    beyond = jax.tree.map(lambda s, t: 2 * s - t, end, start)  # t, α and σ alike
    to = jax.tree.map(lambda a, b: jnp.where(second, a, b), beyond, end)
    # 4. A second evaluation ends its step. The last step ends with its only evaluation.
    last = np.append(np.flatnonzero(second), len(step) - 1)
    weight = jnp.where(second, -0.5, 0.0)  # x'' - ½ (x'' - x) is the mean
    return Evaluations(path.now[step], to, weight=weight, step=step, last=last)
