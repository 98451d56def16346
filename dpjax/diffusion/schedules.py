"""Noise schedules: how much signal and how much noise there is at each time.

Every process in dpjax has one form,

    x_t = α_t x_0 + σ_t ε,    ε ~ N(0, I).                                  (1)

DDPM (Ho et al. 2020, eq. 4) is α² = ᾱ, σ² = 1 - ᾱ, with ᾱ the running product of
1 - β; rectified flow (Liu et al. 2023) is α = 1 - u, σ = u. A schedule says which
(α, σ) there are: where the loss is averaged (`draw`) and which way a sampler walks
(`path`). t = 0 is nearest to the data, everywhere; a path always runs from noise to
data and ends at α = 1, σ = 0.
"""

from typing import Callable, NamedTuple

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from dpjax.core.errors import UserError, choices

Array = jax.Array


@struct.dataclass
class Level:
    """A noise level, a batch of them, or a whole path of them.

    t: [...] the time that the network is told; [..., 2] where it is told two (MeanFlow).
    alpha: [...] scale of the signal.
    sigma: [...] scale of the noise.
    """

    t: Array
    alpha: Array
    sigma: Array

    def __getitem__(self, index):
        return jax.tree.map(lambda leaf: leaf[index], self)


class Path(NamedTuple):
    """S steps of a sampler: from level `now` [S] to level `to` [S].

    Two levels a step and not S + 1 in a chain: some published samplers evaluate at
    one level and walk from another (diffusers 0.11's DDPM with fewer steps than K).
    """

    now: Level
    to: Level


class Schedule(NamedTuple):
    """Two pure functions: where to train, and where to walk.

    draw: `(rng, shape) -> Level[shape]`, the levels that the loss is averaged over.
    path: `(num_steps, spacing="auto") -> Path[num_steps]`.
    """

    draw: Callable[[Array, tuple[int, ...]], Level]
    path: Callable[..., Path]


def _leading(num_levels: int, num_steps: int) -> np.ndarray:
    """Steps 0, K//S, 2 K//S, … reversed: [90, 80, …, 0] for K 100, S 10 (diffusers)."""
    return np.arange(num_steps)[::-1] * (num_levels // num_steps)


def _trailing(num_levels: int, num_steps: int) -> np.ndarray:
    """Steps K-1, K-1-K/S, …: always starts at the noisiest level (Lin et al. 2023)."""
    return np.round(np.arange(num_levels, 0, -num_levels / num_steps))[:num_steps].astype(int) - 1


def _linspace(num_levels: int, num_steps: int) -> np.ndarray:
    """S steps from K-1 to 0, both ends included (Nichol & Dhariwal 2021)."""
    return np.round(np.linspace(0, num_levels - 1, num_steps))[::-1].astype(int)


SPACINGS = {"leading": _leading, "trailing": _trailing, "linspace": _linspace}

# A path that starts with more signal than this never passed through the noise that
# it is given: leading steps with K 100 and S 60 start at ᾱ = .34, silently wrong.
MAX_FIRST_ALPHA_BAR = 0.1


def spaced_steps(alpha_bar: np.ndarray, num_steps: int, spacing: str) -> np.ndarray:
    """The integer levels [S] that a sampler of S steps visits, noisiest first.

    alpha_bar: [K].
    spacing: a name in SPACINGS, or "auto": leading where S divides K (which is what
        published results use) and where that starts in noise, else trailing. A sampler
        may have a spacing of its own in place of "auto" (`samplers.Sampler`).
    """
    num_levels = len(alpha_bar)
    if not 1 <= num_steps <= num_levels:
        raise UserError(
            f"sampler.num_steps={num_steps} must be between 1 and the schedule's "
            f"{num_levels} levels (config.sampler.num_steps or --steps)."
        )
    if spacing == "auto":
        steps = _leading(num_levels, num_steps)
        starts_in_noise = alpha_bar[steps[0]] <= MAX_FIRST_ALPHA_BAR
        divides = num_levels % num_steps == 0
        return steps if divides and starts_in_noise else _trailing(num_levels, num_steps)
    if spacing not in SPACINGS:
        raise UserError(
            f"config.sampler.spacing={spacing!r} is unknown; "
            f"{choices(spacing, [*SPACINGS, 'auto'])}."
        )
    steps = SPACINGS[spacing](num_levels, num_steps)
    if spacing == "leading" and alpha_bar[steps[0]] > MAX_FIRST_ALPHA_BAR:
        raise UserError(
            f"config.sampler.spacing='leading' with {num_steps} steps starts at level "
            f"{steps[0]} of {num_levels}, where ᾱ = {alpha_bar[steps[0]]:.2f} is far from "
            f"noise; use spacing 'trailing', or steps that divide {num_levels}."
        )
    return steps


def discrete(betas: np.ndarray) -> Schedule:
    """The variance-preserving schedule of DDPM with the given betas, [K]."""
    # Betas are rounded to float32 first and multiplied in float32, as diffusers does:
    # ᾱ is then equal to its table to the last bit or two.
    alpha_bar = np.cumprod(1 - np.asarray(betas, np.float32), dtype=np.float32)
    table = Level(
        np.arange(len(betas), dtype=np.int32),
        np.sqrt(alpha_bar),
        np.sqrt(1 - alpha_bar),
    )
    data = Level(np.zeros(1, np.int32), np.ones(1, np.float32), np.zeros(1, np.float32))

    def draw(rng, shape):
        at = jax.random.randint(rng, shape, 0, len(betas))
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[at], table)

    def path(num_steps: int, spacing: str = "auto") -> Path:
        steps = spaced_steps(alpha_bar, num_steps, spacing)
        walk = jax.tree.map(lambda a, b: jnp.concatenate([a[steps], b]), table, data)
        return Path(walk[:-1], walk[1:])

    return Schedule(draw, path)


def cosine(num_levels: int = 100) -> Schedule:
    """The squared-cosine schedule of Nichol & Dhariwal (2021), eq. 17, betas ≤ 0.999."""
    f = np.cos((np.arange(num_levels + 1) / num_levels + 0.008) / 1.008 * np.pi / 2) ** 2
    return discrete(np.minimum(1 - f[1:] / f[:-1], 0.999))


def linear(num_levels: int = 100, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """Betas on a straight line (Ho et al. 2020, section 4)."""
    return discrete(np.linspace(beta_start, beta_end, num_levels))


def scaled_linear(
    num_levels: int = 100, beta_start: float = 1e-4, beta_end: float = 0.02
) -> Schedule:
    """Square roots of the betas on a straight line (latent diffusion)."""
    return discrete(np.linspace(beta_start**0.5, beta_end**0.5, num_levels) ** 2)


def sigmoid(num_levels: int = 100, beta_start: float = 1e-4, beta_end: float = 0.02) -> Schedule:
    """Betas on a sigmoid between -6 and 6 (GeoDiff)."""
    s = 1 / (1 + np.exp(-np.linspace(-6, 6, num_levels)))
    return discrete(s * (beta_end - beta_start) + beta_start)


def rectified_flow(num_levels: int = 100) -> Schedule:
    """Straight lines from data to noise, x_u = (1 - u) x_0 + u ε, in continuous time.

    Rectified flow (Liu et al. 2023, eq. 1), flow matching's optimal-transport path
    (Lipman et al. 2023, eq. 20, with their time reversed): u is 0 at the data, 1 at pure
    noise, uniform in training. What is learned is "velocity", dx/du = ε - x_0.
    num_levels: K, the time that the network is told is t = u K: its embedding, made for
        0 … K - 1, then tells levels apart as well as those of the other schedules.
    """
    at = lambda u: Level(u * num_levels, 1 - u, u)

    def path(num_steps: int, spacing: str = "auto") -> Path:
        check_even(num_steps, spacing)
        u = jnp.asarray(np.linspace(1, 0, num_steps + 1), jnp.float32)
        return Path(at(u[:-1]), at(u[1:]))

    return Schedule(lambda rng, shape: at(jax.random.uniform(rng, shape)), path)


def check_even(num_steps: int, spacing: str) -> None:
    """Refuses what a schedule without integer levels cannot do: its steps are even in u."""
    if num_steps < 1:
        raise UserError(
            f"sampler.num_steps={num_steps} must be 1 or more (config.sampler.num_steps or "
            "--steps)."
        )
    if spacing not in ("auto", "trailing"):
        raise UserError(
            f"config.sampler.spacing={spacing!r} is not for config.schedule.name='flow', whose "
            f"steps are even in time; {choices(spacing, ['auto', 'trailing'])}."
        )
