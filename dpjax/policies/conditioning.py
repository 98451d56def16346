"""Conditioning by inpainting: actions and observations are denoised together.

The other conditioning of Chi et al. (2023; their code, and their Push-T state numbers),
after Janner et al. 2022: x = [a; o] over the whole horizon, and the network, which sees
nothing else, is told what is known by writing it into its input,

    x ← where(known, [a; o], x),    known: the observations of the first To steps.   (1)

In training what is known is clean, has no loss, and still counts in the mean's
denominator. Observations after To are learned and sampled, and then dropped.
"""

import jax
import jax.numpy as jnp

from dpjax.core.types import Array, Problem


def on_features(actions: Array, features: Array) -> Problem:
    """The actions are denoised, the features [B, To, F] condition it (the paper's FiLM)."""
    return Problem(actions, features, None)


def on_steps(actions: Array, features: Array) -> Problem:
    """The features condition the action of their own step: [B, Tp, F], 0 after To."""
    missing = max(actions.shape[1] - features.shape[1], 0)
    return Problem(actions, jnp.pad(features, ((0, 0), (0, missing), (0, 0))), None)


Array = jax.Array


def inpaint(observed: int):
    """`pose` of `policy.diffusion_policy`; the denoiser's features are then Da + F.

    observed: To. In training the features are of all Tp steps, in sampling of To at least.
    """

    def pose(actions: Array, features: Array) -> Problem:
        horizon, action_dim = actions.shape[1:]
        missing = max(horizon - features.shape[1], 0)
        features = jnp.pad(features, ((0, 0), (0, missing), (0, 0)))
        x0 = jnp.concatenate([actions, features], axis=-1)
        is_obs = jnp.arange(x0.shape[-1]) >= action_dim
        known = (jnp.arange(horizon) < observed)[:, None] & is_obs
        return Problem(x0, jnp.zeros((x0.shape[0], 1, 0), x0.dtype), known)

    return pose
