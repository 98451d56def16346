"""How the denoiser gets the observations: as features, step by step, or by inpainting.

A conditioning is a function `(actions [B, Tp, Da], features [B, T, F]) -> Problem`. The Problem
says what is denoised, on what it is conditioned, and which of its entries are known.

Inpainting (Janner et al. 2022) is how Chi et al. (2023) obtained their results on Push-T from
states. Actions and observations of the whole horizon are denoised together, x = [a; o]. The
network has no other input than x and the level. It sees the observations because they are written
into x before every evaluation:

    x ← where(known, [a; o], x),    known: the observations of the first To steps.   (1)

In training the known entries are clean and their error is 0, but the mean of the loss still
counts them. The observations after step To are learned and sampled, and then dropped.
"""

from collections.abc import Callable

import jax.numpy as jnp

from dpjax.core.types import ACTION, Array, Batch, Observation, Params, PRNGKey, Problem
from dpjax.policies.base import Encoder

Conditioning = Callable[[Array, Array], Problem]


def on_features(actions: Array, features: Array) -> Problem:
    """All actions are conditioned on the features of all observed steps, [B, To, F]."""
    # The usual case, "global conditioning" in the code of Chi et al. (2023).
    return Problem(x0=actions, cond=features, known=None)


def on_steps(actions: Array, features: Array) -> Problem:
    """Each action is conditioned on the features of its own step: [B, Tp, F], 0 after step To."""
    # "Local conditioning" in the code of Chi et al. (2023).
    return Problem(x0=actions, cond=_pad_steps(features, actions.shape[1]), known=None)


def inpaint(observed: int) -> Conditioning:
    """Inpainting by equation (1): x has Da + F entries per step, and cond has no features.

    observed: To. Training needs the features of all Tp steps, sampling those of at least To.
    """

    def conditioning(actions: Array, features: Array) -> Problem:
        # 1. Actions and observations in one array.
        horizon, action_dim = actions.shape[1:]
        x0 = jnp.concatenate([actions, _pad_steps(features, horizon)], axis=-1)  # [B, Tp, Da + F]
        # 2. Known are the observations of the first To steps.
        is_observation = jnp.arange(x0.shape[-1]) >= action_dim  # [Da + F]
        known = (jnp.arange(horizon) < observed)[:, None] & is_observation  # [Tp, Da + F]
        # 3. A denoiser always takes a cond. This one has one step without features: [B, 1, 0].
        nothing = jnp.zeros((x0.shape[0], 1, 0), x0.dtype)
        return Problem(x0=x0, cond=nothing, known=known)

    return conditioning


def _pad_steps(features: Array, horizon: int) -> Array:
    """Features [B, T, F] with zeros appended up to `horizon` steps, if there are fewer."""
    missing = max(horizon - features.shape[1], 0)  # 0 if all Tp steps are observed
    return jnp.pad(features, ((0, 0), (0, missing), (0, 0)))


def encode(
    encoder: Encoder, params: Params, obs: Observation, keys: PRNGKey | None = None
) -> Array:
    """The features [B, T, F] of observations in data units."""
    # The view is in data units (pixels 0..255), the encoder in network units.
    normalized = params["normalizer"].normalize(encoder.view(obs, keys))
    return encoder.apply(params["encoder"], normalized, keys)


def batch_problem(
    encoder: Encoder,
    conditioning: Conditioning,
    params: Params,
    batch: Batch,
    keys: PRNGKey | None = None,
) -> Problem:
    """The Problem, with x0 [B, Tp, D] in network units, of a batch in data units."""
    actions = params["normalizer"].normalize({ACTION: batch.actions})[ACTION]
    return conditioning(actions, encode(encoder, params, batch.obs, keys))
