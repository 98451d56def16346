"""What the network predicts: any fixed mixture of data and noise.

    y = a x_0 + b ε                                                         (2)

Together with x = α x_0 + σ ε, equation (1) of `schedules`, it is a 2×2 linear
system, so that one solve reads x_0 back from any of them:

    x̂_0 = (b x - σ y) / (α b - σ a)                                         (3)
"""

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from dpjax.core.errors import UserError, choices
from dpjax.diffusion.schedules import Level, Path

Array = jax.Array

PREDICTION_TYPES = {  # name: (α, σ) -> (a, b)
    "epsilon": lambda alpha, sigma: (0.0, 1.0),
    "sample": lambda alpha, sigma: (1.0, 0.0),
    "v": lambda alpha, sigma: (-sigma, alpha),  # Salimans & Ho 2022
    "velocity": lambda alpha, sigma: (-1.0, 1.0),  # dx/dt of a straight line
}


@struct.dataclass
class Estimate:
    """What a predictor believes, unclipped: both halves of equation (1).

    x0: [B, Tp, Da] the data.
    eps: [B, Tp, Da] the noise.
    """

    x0: Array
    eps: Array


def expand(scalar: Array, like: Array) -> Array:
    """[B] or [] with ones appended, to broadcast against `like` [B, …]."""
    scalar = jnp.asarray(scalar)
    return jnp.reshape(scalar, scalar.shape + (1,) * (like.ndim - scalar.ndim))


def add_noise(x0: Array, eps: Array, level: Level) -> Array:
    """Equation (1): x0, eps [B, Tp, Da], level [B] -> x [B, Tp, Da]."""
    return expand(level.alpha, x0) * x0 + expand(level.sigma, x0) * eps


def prediction(prediction_type: str, x0: Array, eps: Array, level: Level) -> Array:
    """Equation (2): what a network that predicts `prediction_type` should say."""
    a, b = PREDICTION_TYPES[prediction_type](expand(level.alpha, x0), expand(level.sigma, x0))
    return a * x0 + b * eps


def estimate(prediction_type: str, y: Array, x: Array, level: Level) -> Estimate:
    """Equation (3), and ε̂ by the other row: the network's y read as (x̂_0, ε̂)."""
    alpha, sigma = expand(level.alpha, x), expand(level.sigma, x)
    a, b = PREDICTION_TYPES[prediction_type](alpha, sigma)
    determinant = alpha * b - sigma * a
    return Estimate(x0=(b * x - sigma * y) / determinant, eps=(alpha * y - a * x) / determinant)


def check_prediction_type(prediction_type: str, path: Path) -> None:
    """Refuses a prediction that says nothing about x_0 somewhere on the path.

    Epsilon at pure noise (α = 0) is the usual case: ε̂ = x and x_0 is 0/0.
    """
    if prediction_type not in PREDICTION_TYPES:
        raise UserError(f"config.predict={prediction_type!r} is unknown; {choices(prediction_type, PREDICTION_TYPES)}.")
    alpha, sigma = np.asarray(path.now.alpha), np.asarray(path.now.sigma)
    a, b = PREDICTION_TYPES[prediction_type](alpha, sigma)
    singular = np.flatnonzero(np.abs(alpha * b - sigma * a) < 1e-12)
    if len(singular):
        level = float(np.asarray(path.now.t)[singular[0]])
        raise UserError(
            f"config.predict={prediction_type!r} cannot be read at level t={level:g} (α = "
            f"{alpha[singular[0]]:g}): use predict 'v', 'velocity' or 'sample', or a path "
            "without it."
        )
