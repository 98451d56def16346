"""What the network predicts: a fixed combination of the data and the noise.

    y = a x_0 + b ε                                                         (2)

Together with equation (1) of `schedules`, x = α x_0 + σ ε, this is a system of two linear
equations. Its solution gives an estimate of x_0, whatever the network predicts:

    x̂_0 = (b x - σ y) / (α b - σ a)                                         (3)
"""

from collections.abc import Callable
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np

from dpjax.core.errors import UserError, choose
from dpjax.diffusion.schedules import Level, Path

Array = jax.Array

# {prediction type: (α, σ) -> (a, b) of equation (2)}
PREDICTION_TYPES: dict[str, Callable[[Any, Any], tuple[Any, Any]]] = {
    "epsilon": lambda alpha, sigma: (0.0, 1.0),  # the noise, Ho et al. 2020
    "sample": lambda alpha, sigma: (1.0, 0.0),  # the clean data
    "v": lambda alpha, sigma: (-sigma, alpha),  # Salimans & Ho 2022
    "velocity": lambda alpha, sigma: (-1.0, 1.0),  # dx/du of a rectified flow
}


@struct.dataclass
class Estimate:
    """Estimates of the two terms of equation (1), before any clipping.

    x0: [B, Tp, Da] the data.
    eps: [B, Tp, Da] the noise.
    """

    x0: Array
    eps: Array


def expand(scalar: Array, like: Array) -> Array:
    """[B] or [] with axes of size 1 appended, so that it broadcasts to `like` [B, …]."""
    scalar = jnp.asarray(scalar)
    # [B, 1, …, 1]
    return jnp.reshape(scalar, scalar.shape + (1,) * (like.ndim - scalar.ndim))


def add_noise(x0: Array, eps: Array, level: Level) -> Array:
    """Equation (1): x0, eps [B, Tp, Da] at level [B] -> x [B, Tp, Da]."""
    return expand(level.alpha, x0) * x0 + expand(level.sigma, x0) * eps


def prediction(prediction_type: str, x0: Array, eps: Array, level: Level) -> Array:
    """Equation (2): the correct prediction y [B, Tp, Da], the target of the loss."""
    a, b = PREDICTION_TYPES[prediction_type](expand(level.alpha, x0), expand(level.sigma, x0))
    return a * x0 + b * eps


def estimate(prediction_type: str, y: Array, x: Array, level: Level) -> Estimate:
    """Equation (3): the data and the noise that a prediction y [B, Tp, Da] of x implies."""
    alpha = expand(level.alpha, x)
    sigma = expand(level.sigma, x)
    a, b = PREDICTION_TYPES[prediction_type](alpha, sigma)
    # Cramer's rule for x = α x_0 + σ ε and y = a x_0 + b ε. The determinant is never 0 on a
    # path that `check_prediction_type` accepts.
    determinant = alpha * b - sigma * a
    return Estimate(x0=(b * x - sigma * y) / determinant, eps=(alpha * y - a * x) / determinant)


def check_prediction_type(prediction_type: str, path: Path) -> None:
    """Raises UserError if the type is unknown, or does not determine x_0 everywhere on the path.

    The usual case is "epsilon" at pure noise (α = 0). There x = ε, and (3) is 0/0.
    """
    # 1. (a, b) at every level of the path, in numpy: [S] each.
    combination = choose(PREDICTION_TYPES, prediction_type, "prediction_type")
    alpha = np.asarray(path.now.alpha)
    sigma = np.asarray(path.now.sigma)
    a, b = combination(alpha, sigma)
    # 2. Levels at which the linear system has no unique solution: its determinant is 0.
    singular = np.flatnonzero(np.abs(alpha * b - sigma * a) < 1e-12)
    if len(singular):
        first = singular[0]
        # The message names the first such level. MeanFlow has two times per level: t comes first.
        t = float(np.ravel(np.asarray(path.now.t)[first])[0])
        raise UserError(
            f"prediction_type={prediction_type!r} does not determine the data at level t={t:g} "
            f"(α = {alpha[first]:g}): use 'v', 'velocity' or 'sample', or a path without this "
            "level.",
            argument="prediction_type",
        )
