"""Noise schedules: how much signal and how much noise x contains at each time.

Every diffusion process in dpjax has the form

    x_t = α_t x_0 + σ_t ε,    ε ~ N(0, I).                                  (1)

For DDPM (Ho et al. 2020, eq. 4), α² = ᾱ and σ² = 1 - ᾱ, where ᾱ is the running product of
1 - β. For rectified flow (Liu et al. 2023), α = 1 - u and σ = u. A schedule lists the levels
(α, σ) over which the loss is averaged (`draw`) and those that a sampler visits (`path`).
Time t = 0 is always nearest to the data. A path runs from noise to data, and its last step
ends at α = 1, σ = 0.

Schedules and paths hold numpy arrays, so that building one does not start a JAX backend.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from dpjax.core.errors import UserError, choices

Array = jax.Array
AnyArray = Any  # np.ndarray in a path, jax.Array elsewhere


@struct.dataclass
class Level:
    """One noise level, a batch of them, or all levels of a path.

    t: [...] the network's time input; [..., 2] for a network with two times (MeanFlow).
    alpha: [...] scale of the signal.
    sigma: [...] scale of the noise.
    """

    t: AnyArray
    alpha: AnyArray
    sigma: AnyArray

    def __getitem__(self, index: Any) -> "Level":
        # The same index for all three arrays: a Level is sliced like a single array.
        return jax.tree.map(lambda leaf: leaf[index], self)


class Path(NamedTuple):
    """The S steps of a sampler: step i leads from level now[i] to level to[i] (numpy arrays).

    A path stores two levels per step instead of a chain of S + 1 levels. In some published
    samplers a step does not end where the next one begins (the DDPM of diffusers 0.11, with
    fewer steps than K).
    """

    now: Level
    to: Level


class Schedule(NamedTuple):
    """The noise levels of training and of sampling, as two pure functions.

    draw: `(rng, shape) -> Level[shape]`, random levels for the loss.
    path: `(num_steps, spacing="auto") -> Path[num_steps]`, the levels that a sampler visits.
        Raises UserError if the schedule has no such path.
    """

    draw: Callable[[Array, tuple[int, ...]], Level]
    path: Callable[..., Path]


def _leading(num_levels: int, num_steps: int) -> np.ndarray:
    """Steps 0, K//S, 2 K//S, … reversed: [90, 80, …, 0] for K = 100, S = 10 (diffusers)."""
    # // rounds down: if S does not divide K, the steps can start far from noise.
    return np.arange(num_steps)[::-1] * (num_levels // num_steps)


def _trailing(num_levels: int, num_steps: int) -> np.ndarray:
    """Steps K-1, K-1-K/S, …: always starts at the noisiest level (Lin et al. 2023)."""
    # Rounding errors of the float stride can give S + 1 entries: the last one is cut off.
    return np.round(np.arange(num_levels, 0, -num_levels / num_steps))[:num_steps].astype(int) - 1


def _linspace(num_levels: int, num_steps: int) -> np.ndarray:
    """S steps from K-1 to 0, both ends included (Nichol & Dhariwal 2021)."""
    return np.round(np.linspace(0, num_levels - 1, num_steps))[::-1].astype(int)


# {name of a spacing, as in diffusers: (K, S) -> levels [S], noisiest first}
SPACINGS = {"leading": _leading, "trailing": _trailing, "linspace": _linspace}

# The largest ᾱ at which a path may start. Sampling starts from pure noise. If the first level has
# more signal than this, the samples are wrong without any error: leading steps with K = 100 and
# S = 60 would start at ᾱ = 0.34.
MAX_FIRST_ALPHA_BAR = 0.1


def spaced_steps(alpha_bar: np.ndarray, num_steps: int, spacing: str) -> np.ndarray:
    """The integer levels [S] that a sampler of S steps visits, noisiest first.

    alpha_bar: ᾱ of every level, [K].
    spacing: a name in SPACINGS, or "auto": leading if S divides K and the first level is noisy
        enough (published results use leading steps), otherwise trailing. A sampler may replace
        "auto" by a spacing of its own (`samplers.Sampler`).

    Raises UserError if there are fewer than S levels, if the spacing is unknown, or if the
    first level is too far from noise.
    """
    num_levels = len(alpha_bar)
    # A level is visited at most once.
    if not 1 <= num_steps <= num_levels:
        raise UserError(
            f"num_steps={num_steps} must be between 1 and the schedule's {num_levels} levels "
            f"(num_levels={num_levels}).",
            argument="num_steps",
        )
    if spacing == "auto":
        # Leading, as in published results, unless it would start too far from noise.
        steps = _leading(num_levels, num_steps)
        starts_in_noise = alpha_bar[steps[0]] <= MAX_FIRST_ALPHA_BAR
        divides = num_levels % num_steps == 0
        return steps if divides and starts_in_noise else _trailing(num_levels, num_steps)
    if spacing not in SPACINGS:
        raise UserError(
            f"spacing={spacing!r} is unknown; {choices(spacing, [*SPACINGS, 'auto'])}.",
            argument="spacing",
        )
    # A spacing that the user chose is not replaced. Steps that start too far from noise are
    # refused, such as a single one of linspace, at level 0. Trailing ones start at the last level.
    steps = SPACINGS[spacing](num_levels, num_steps)
    is_late = spacing == "leading" or steps[0] < num_levels - 1
    if is_late and alpha_bar[steps[0]] > MAX_FIRST_ALPHA_BAR:
        raise UserError(
            f"spacing={spacing!r} with {num_steps} steps starts at level {steps[0]} of "
            f"{num_levels}, where ᾱ = {alpha_bar[steps[0]]:.2f} is far from noise; use spacing "
            f"'trailing', or a number of steps that divides {num_levels}.",
            argument="spacing",
        )
    return steps


def discrete(betas: np.ndarray) -> Schedule:
    """The variance-preserving schedule of DDPM with the given betas, [K]."""
    # Betas are rounded to float32 and multiplied in float32, as in diffusers. So ᾱ equals the
    # table of diffusers up to the last bit or two.
    alpha_bar = np.cumprod(1 - np.asarray(betas, np.float32), dtype=np.float32)
    levels = Level(
        t=np.arange(len(betas), dtype=np.int32),  # the network is given the level's number
        alpha=np.sqrt(alpha_bar),
        sigma=np.sqrt(1 - alpha_bar),  # α² + σ² = 1: the variance of x is preserved
    )
    # Pure data, where every path ends. It is not a level of training.
    data = Level(
        t=np.zeros(1, np.int32),
        alpha=np.ones(1, np.float32),
        sigma=np.zeros(1, np.float32),
    )

    def draw(rng: Array, shape: tuple[int, ...]) -> Level:
        # All K levels are equally likely. The table becomes a constant of the compiled step.
        index = jax.random.randint(rng, shape, 0, len(betas))
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], levels)

    def path(num_steps: int, spacing: str = "auto") -> Path:
        steps = spaced_steps(alpha_bar, num_steps, spacing)
        # A chain of S + 1 levels, with the data last: each step ends where the next one begins.
        chain = jax.tree.map(lambda a, b: np.concatenate([a[steps], b]), levels, data)
        return Path(now=chain[:-1], to=chain[1:])

    return Schedule(draw, path)


def cosine(num_levels: int = 100) -> Schedule:
    """The squared-cosine schedule of Nichol & Dhariwal (2021), eq. 17, betas ≤ 0.999."""
    # f is ᾱ up to a constant factor, and β = 1 - ᾱ_t / ᾱ_{t-1}. The offset 0.008 keeps the first
    # betas from being tiny. The bound avoids β = 1 at the last level, where ᾱ would be 0.
    f = np.cos((np.arange(num_levels + 1) / num_levels + 0.008) / 1.008 * np.pi / 2) ** 2
    return discrete(np.minimum(1 - f[1:] / f[:-1], 0.999))


def linear(num_levels: int = 100, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """Betas on a straight line (Ho et al. 2020, section 4)."""
    # The defaults of Ho et al. are meant for K = 1000: with K = 100, ᾱ ends at 0.36.
    return discrete(np.linspace(beta_start, beta_end, num_levels))


def scaled_linear(
    num_levels: int = 100, beta_start: float = 1e-4, beta_end: float = 0.02
) -> Schedule:
    """Square roots of the betas on a straight line (latent diffusion, Rombach et al. 2022)."""
    return discrete(np.linspace(beta_start**0.5, beta_end**0.5, num_levels) ** 2)


def sigmoid(num_levels: int = 100, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """Betas on a sigmoid between -6 and 6 (GeoDiff, Xu et al. 2022)."""
    s = 1 / (1 + np.exp(-np.linspace(-6, 6, num_levels)))  # from 0.002 to 0.998
    return discrete(s * (beta_end - beta_start) + beta_start)


def rectified_flow(num_levels: int = 100) -> Schedule:
    """Straight lines from data to noise, x_u = (1 - u) x_0 + u ε, in continuous time.

    Rectified flow (Liu et al. 2023, eq. 1) is the optimal-transport path of flow matching
    (Lipman et al. 2023, eq. 20, with their time reversed): u is 0 at the data, 1 at pure noise,
    and uniform in training. The network usually predicts the "velocity" dx/du = ε - x_0.

    num_levels: K, the scale of the network's time input t = K u. Time embeddings are designed
        for t in 0 … K - 1, the range of the other schedules.
    """
    # u may be a numpy or a jax array.
    level = lambda u: Level(t=u * num_levels, alpha=1 - u, sigma=u)

    def path(num_steps: int, spacing: str = "auto") -> Path:
        check_even(num_steps, spacing)
        u = np.linspace(1, 0, num_steps + 1).astype(np.float32)  # [S + 1], from noise to data
        return Path(now=level(u[:-1]), to=level(u[1:]))

    # In training u is uniform in [0, 1), as in both papers.
    return Schedule(draw=lambda rng, shape: level(jax.random.uniform(rng, shape)), path=path)


def check_even(num_steps: int, spacing: str) -> None:
    """Raises UserError unless the arguments allow evenly spaced steps in continuous time."""
    if num_steps < 1:
        raise UserError(f"num_steps={num_steps} must be at least 1.", argument="num_steps")
    # Even steps that begin at pure noise are what "trailing" means.
    if spacing not in ("auto", "trailing"):
        raise UserError(
            f"spacing={spacing!r} does not go with a rectified flow, whose steps are even in "
            f"time; {choices(spacing, ['auto', 'trailing'])}.",
            argument="spacing",
        )
