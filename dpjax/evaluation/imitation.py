"""How sampled chunks compare with demonstrated ones: a number, a table, a picture.

How well a policy imitates demonstrations that it was not trained on.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dpjax.core.types import Array, Batch, Metrics, Params
from dpjax.policies.base import Policy


def spread(actions: np.ndarray, mask: np.ndarray) -> float:
    """Root mean square distance of recorded actions [B, Tp, Da] from their mean, data units.

    The error of a policy that always does the mean: what an action error is small against.
    """
    recorded = actions[mask > 0]
    return float(np.sqrt(np.square(recorded - recorded.mean(0)).mean()))


def table(rows: Sequence[Mapping], best: int, samples: int) -> str:
    """A line a checkpoint: its step, loss, and the errors of its chunks."""
    lines = [f"{'step':>8} {'loss':>10} {'action error':>13} {f'best of {samples}':>11}"]
    for i, row in enumerate(rows):
        mark = "  lowest" if i == best else ""
        lines.append(
            f"{row['step']:>8} {row['loss']:>10.4g} {row['action_error']:>13.4g} "
            f"{row['action_error_best']:>11.4g}{mark}"
        )
    return "\n".join(lines)


def validate(policy: Policy, params: Params, rng: Array, batch: Batch, samples: int) -> Metrics:
    """Loss, and distance of sampled chunks from the demonstrated one, data units.

    Of several samples the mean and the best, since a demonstration shows one of several
    right ways (diffusion_policy issue 22).
    """
    (total, sums), chunks = look(policy, params, rng, batch, samples)
    found = errors(chunks, batch.actions, batch.mask)  # [samples, B]
    return {
        "val_loss": total / sums["weight"],
        "val_action_error": found.mean(),
        "val_action_error_best": found.min(0).mean(),
    }


def look(policy: Policy, params: Params, rng: Array, batch: Batch, samples: int):
    """The loss of a batch, as `policy.loss` gives it, and chunks [samples, B, Tp, Da]."""
    loss_rng, sample_rng = jax.random.split(rng)
    sample = lambda key: policy.sample(params, key, batch.obs)
    chunks = jax.lax.map(sample, jax.random.split(sample_rng, samples))
    return policy.loss(params, loss_rng, batch), chunks


def errors(chunks: Array, actions: Array, mask: Array) -> Array:
    """Root mean square over recorded steps and dims of chunks [..., B, Tp, Da]: [..., B].

    actions: [B, Tp, Da], demonstrated. mask: [B, Tp], 1 where the step was recorded.
    """
    square = jnp.square(chunks - actions).mean(-1) * mask
    return jnp.sqrt(square.sum(-1) / mask.sum(-1))
