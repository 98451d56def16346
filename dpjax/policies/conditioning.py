"""How the observations enter the denoiser: as features, step by step, or by inpainting.

A conditioning is a function `(actions [B, Tp, Da], features [B, T, F]) -> Problem`. It says what
is denoised, under which condition, and what of it is known.

Inpainting is the other conditioning of Chi et al. (2023), in their code and their numbers for
Push-T from states, after Janner et al. 2022. Actions and observations are denoised together,
x = [a; o] over the whole horizon. The network has no other input. It gets to know the observations
because they are written into x before every evaluation:

    x ← where(known, [a; o], x),    known: the observations of the first To steps.   (1)

In training the known entries are clean and have no loss, but count in the mean's denominator.
The observations after step To are learned and sampled, and then dropped.
"""

from collections.abc import Callable

import jax.numpy as jnp

from dpjax.core.types import Array, Problem

Conditioning = Callable[[Array, Array], Problem]


def on_features(actions: Array, features: Array) -> Problem:
    """Actions are denoised, conditioned on all features [B, To, F] (the paper's FiLM)."""
    return Problem(x0=actions, cond=features, known=None)


def on_steps(actions: Array, features: Array) -> Problem:
    """Each action is conditioned on its own step's features: [B, Tp, F], 0 after step To."""
    return Problem(x0=actions, cond=_pad_steps(features, actions.shape[1]), known=None)


def inpaint(observed: int) -> Conditioning:
    """Equation (1): the denoiser's x then has Da + F entries per step, and no condition.

    observed: To. The features are those of all Tp steps in training and of at least To steps in
        sampling.
    """

    def conditioning(actions: Array, features: Array) -> Problem:
        horizon, action_dim = actions.shape[1:]
        x0 = jnp.concatenate([actions, _pad_steps(features, horizon)], axis=-1)  # [B, Tp, Da + F]
        # The mask over entries [Da + F], and with the first To steps the one over [Tp, Da + F].
        is_observation = jnp.arange(x0.shape[-1]) >= action_dim
        known = (jnp.arange(horizon) < observed)[:, None] & is_observation
        # The denoiser still gets a condition, of one step and no features.
        nothing = jnp.zeros((x0.shape[0], 1, 0), x0.dtype)
        return Problem(x0=x0, cond=nothing, known=known)

    return conditioning


def _pad_steps(features: Array, horizon: int) -> Array:
    """Features [B, T, F] with zeros appended up to `horizon` steps, if there are fewer."""
    missing = max(horizon - features.shape[1], 0)
    return jnp.pad(features, ((0, 0), (0, missing), (0, 0)))
