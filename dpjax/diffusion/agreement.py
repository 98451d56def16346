"""Agreement of a new action chunk with the last one, where the two meet.

While a chunk is sampled, the robot executes the next d actions of the last chunk: they are
committed. Each method here pulls the network's estimate x̂_0 towards the last chunk Y, moved to the
present, during the sampling loop (Black, Galliker & Levine 2025, "Real-Time Chunking").

How much a step counts: with i steps from the present and Y known for i < E,

    w_i = 1  (i < d),    c_i (e^{c_i} - 1) / (e - 1)  (d ≤ i < E),    0  (i ≥ E),
    c_i = (E - i) / (E - d + 1)                                                     (a)

Where to pull: with the Jacobian J = ∂x̂_0/∂x, whose transpose costs one backward pass,

    g = Jᵀ W (Y - x̂_0)                                                              (b)

How far: x stays α x̂_0' + σ ε̂', so every prediction type, schedule and sampler goes on unchanged,

    x̂_0' = x̂_0 + κ g,    ε̂' = ε̂ - (α/σ) κ g                                         (c)

The methods differ in κ and g:

    rtc     the paper's: κ = min(β σ, (q² α² + σ²) / (q² α)), q the std of the data, 1 in the paper
    line    w is 1 on what is committed and 0 elsewhere. There, with e = W (Y - x̂_0), the exact
            answer is Jᵀ (W J Wᵀ)⁻¹ e, because Cov(x_0 | x) = (σ²/α) J for every distribution (d).
            One step of conjugate gradients towards it needs no β and no q:

                κ = <e, e> / <e, g>,  0 where <e, g> ≤ 0                            (e)

    blend   without the Jacobian: κ g = W (Y - x̂_0). No backward pass, and no knowledge of which
            actions go together

The steps of the past, i < 0, have been executed: they count like committed ones.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dpjax.core.errors import choose
from dpjax.diffusion.parameterization import Estimate, expand
from dpjax.diffusion.sampling import Predict
from dpjax.diffusion.schedules import Level, Path

Array = jax.Array

# The q of "line" in the bound of "rtc", against a <e, g> that is small by chance. Chunks that a
# policy samples for one observation have a std of .02 to .1 in network units.
SMALLEST_STD = 0.03


class Agreement(NamedTuple):
    """How a chunk is made to agree with the last one.

    method: a name in METHODS.
    share: the share of the path, in (0, 1] and from its noisy end on, on which it acts.
    beta, std: β and q of "rtc"; the other methods have no parameters.
    """

    method: str
    share: float = 1.0
    beta: float = 5.0
    std: float = 1.0


def soft_weights(known: Array, committed: Array, observed: int) -> Array:
    """Equation (a): w [B, Tp] of steps that are known, bool [B, Tp].

    committed: int [B], d. observed: To; step To - 1 is the present.
    """
    i = jnp.arange(known.shape[1]) - (observed - 1)  # [Tp]
    # E and d, [B, 1]. What is not known cannot be committed.
    end = known.sum(1)[:, None] - (observed - 1)
    d = jnp.minimum(committed[:, None], end)
    c = jnp.clip((end - i) / (end - d + 1), 0.0, 1.0)
    falling = c * jnp.expm1(c) / (np.e - 1)
    return jnp.where(known, jnp.where(i < d, 1.0, falling), 0.0)


def hard_weights(known: Array, committed: Array, observed: int) -> Array:
    """[B, Tp]: 1 on the past and on what is committed, if known; arguments of `soft_weights`."""
    i = jnp.arange(known.shape[1]) - (observed - 1)
    return jnp.where(known & (i < committed[:, None]), 1.0, 0.0)


def blend(predict: Predict, last: Array, weight: Array) -> Predict:
    """`predict` with x̂_0 replaced by W Y + (1 - W) x̂_0.

    last: Y [B, Tp, D] in network units, finite. weight: [B, Tp, D].
    """

    def blended(x: Array, level: Level, *prepared: Any) -> Estimate:
        estimate = predict(x, level, *prepared)
        return _moved(estimate, level, weight * (last - estimate.x0))

    return blended


def rtc(predict: Predict, last: Array, weight: Array, beta: float, std: float) -> Predict:
    """`predict` with the guidance of the paper, for data of this std; see `blend`."""

    def guided(x: Array, level: Level, *prepared: Any) -> Estimate:
        estimate, _, g = _gradient(predict, x, level, prepared, last, weight)
        # At pure noise, α = 0, the bound is infinite and β σ remains.
        kappa = jnp.minimum(beta * level.sigma, _bound(level, std))
        return _moved(estimate, level, kappa * g)

    return guided


def line(predict: Predict, last: Array, weight: Array, smallest: float = SMALLEST_STD) -> Predict:
    """`predict` with the guidance (e); weight: [B, Tp, D], 1 or 0; see `blend`.

    smallest: the smallest std of the data that is believed.
    """

    def guided(x: Array, level: Level, *prepared: Any) -> Estimate:
        estimate, e, g = _gradient(predict, x, level, prepared, last, weight)
        # One κ per example, [B, 1, 1]. Without a committed step, or without a hold on it, 0.
        square = jnp.sum(e * e, (1, 2), keepdims=True)
        along = jnp.sum(e * g, (1, 2), keepdims=True)
        length = square / jnp.where(along > 0, along, 1.0)
        # At pure noise x̂_0 does not depend on x, and what the network says of J is chance.
        has_hold = (along > 0) & (level.alpha > 0)
        kappa = jnp.where(has_hold, jnp.minimum(length, _bound(level, smallest)), 0.0)
        return _moved(estimate, level, kappa * g)

    return guided


def _gradient(
    predict: Predict, x: Array, level: Level, prepared: tuple, last: Array, weight: Array
) -> tuple[Estimate, Array, Array]:
    """The estimate, e = W (Y - x̂_0), and the g of (b), by one evaluation and one vjp."""

    def x0_of(x: Array) -> tuple[Array, Estimate]:
        estimate = predict(x, level, *prepared)
        return estimate.x0, estimate

    # Examples do not depend on each other: one vjp is the product of each with its own Jacobian.
    x0, vjp, estimate = jax.vjp(x0_of, x, has_aux=True)
    e = weight * (last - x0)
    return estimate, e, vjp(e)[0]


def _bound(level: Level, std: float) -> Array:
    """(q² α² + σ²) / (q² α), the κ that is exact for independent data of std q; infinite at α=0."""
    alpha = jnp.asarray(level.alpha)
    return ((std * alpha) ** 2 + level.sigma**2) / (std**2 * alpha)


def _moved(estimate: Estimate, level: Level, change: Array) -> Estimate:
    """Equation (c) with κ g = `change`."""
    ratio = expand(level.alpha / level.sigma, change)
    return Estimate(x0=estimate.x0 + change, eps=estimate.eps - ratio * change)


# {method: (settings, predict, last, soft weights, hard weights) -> guided predict}
METHODS: dict[str, Callable[..., Predict]] = {
    "blend": lambda settings, predict, last, soft, hard: blend(predict, last, soft),
    "line": lambda settings, predict, last, soft, hard: line(predict, last, hard),
    "rtc": lambda settings, predict, last, soft, hard: rtc(
        predict, last, soft, settings.beta, settings.std
    ),
}


def agree(
    settings: Agreement,
    predict: Predict,
    last: Array,
    committed: Array | None,
    observed: int,
    size: int,
    path: Path,
) -> Predict:
    """`predict`, guided towards the last chunks.

    last: [B, Tp, Da] in network units, moved to the present; NaN in the steps that they do not
        reach, and in all steps of an example without a last chunk, which is not guided.
    committed: int [B], d; None for 0.
    observed: To. size: D of x [B, Tp, D], at least Da: what is denoised beside the actions is not
        guided. path: the whole path of the sampling loop.

    Raises UserError for an unknown method.
    """
    method = choose(METHODS, settings.method, "agree")
    known = jnp.isfinite(last).all(-1)  # [B, Tp]
    if committed is None:
        committed = jnp.zeros(known.shape[0], jnp.int32)
    # NaN times a weight of 0 would still be NaN, so unknown steps become 0.
    actions = jnp.where(known[..., None], last, 0.0)
    others = ((0, 0), (0, 0), (0, size - last.shape[-1]))
    weights = [
        jnp.pad(jnp.broadcast_to(weigh(known, committed, observed)[..., None], last.shape), others)
        for weigh in (soft_weights, hard_weights)
    ]
    guided = method(settings, predict, jnp.pad(actions, others), *weights)
    return _on_share(guided, predict, path, settings.share)


def _on_share(guided: Predict, predict: Predict, path: Path, share: float) -> Predict:
    """`guided` on the first `share` of the path's steps, and `predict` on the others."""
    num_steps = len(path.now.t)
    num_guided = max(round(share * num_steps), 1)
    if num_guided == num_steps:
        return guided
    # The level decides, not a count: a warm start begins in the middle of the path.
    final = path.now[num_guided - 1]

    def chosen(x: Array, level: Level, *prepared: Any) -> Estimate:
        # σ/α falls along the path; multiplied out, since α may be 0. Only one side is computed.
        is_noisy = level.sigma * final.alpha >= final.sigma * level.alpha
        return jax.lax.cond(is_noisy, guided, predict, x, level, *prepared)

    return chosen
