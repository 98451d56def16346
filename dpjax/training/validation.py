"""How well a policy imitates demonstrations that it was not trained on."""

import jax
import jax.numpy as jnp

from dpjax.policy import Policy
from dpjax.types import Array, Batch, Metrics, Params


def validate(policy: Policy, params: Params, rng: Array, batch: Batch, samples: int) -> Metrics:
    """Loss, and distance of sampled chunks from the demonstrated one, data units.

    The error of a chunk is its root mean square over steps and dims, recorded steps
    only; of several samples the mean and the best, since a demonstration shows one of
    several right ways (diffusion_policy issue 22).
    """
    loss_rng, sample_rng = jax.random.split(rng)
    total, sums = policy.loss(params, loss_rng, batch)

    def error(key):
        actions = policy.sample(params, key, batch.obs)
        square = jnp.square(actions - batch.actions).mean(-1) * batch.mask
        return jnp.sqrt(square.sum(-1) / batch.mask.sum(-1))  # [B]

    errors = jax.lax.map(error, jax.random.split(sample_rng, samples))  # [samples, B]
    return {
        "val_loss": total / sums["weight"],
        "val_action_error": errors.mean(),
        "val_action_error_best": errors.min(0).mean(),
    }
