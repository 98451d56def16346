"""How well a policy imitates demonstrations that it was not trained on: numbers and a table."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dpjax.core.types import Array, Batch, Metrics, Params
from dpjax.policies.base import Policy


def validate(policy: Policy, params: Params, rng: Array, batch: Batch, samples: int) -> Metrics:
    """Loss of a batch, and errors of sampled action chunks in the data's units.

    Of the errors of several samples it gives the mean and the smallest: a demonstration shows one
    of several right ways, and the policy may have taken another (diffusion_policy issue 22).
    """
    # The loss is a sum over examples; its weight is how many of them count.
    (total, sums), chunks = loss_and_samples(policy, params, rng, batch, samples)
    sample_errors = errors(chunks, batch.actions, batch.mask)  # [samples, B]
    return {
        "val_loss": total / sums["weight"],
        "val_action_error": sample_errors.mean(),
        "val_action_error_best": sample_errors.min(0).mean(),
    }


def loss_and_samples(
    policy: Policy, params: Params, rng: Array, batch: Batch, samples: int
) -> tuple[tuple[Array, Metrics], Array]:
    """The loss of a batch as `policy.loss` gives it, and action chunks [samples, B, Tp, Da]."""
    loss_rng, sample_rng = jax.random.split(rng)
    sample = lambda key: policy.sample(params, key, batch.obs)
    # One sample after the other: all at once would take `samples` times the memory.
    chunks = jax.lax.map(sample, jax.random.split(sample_rng, samples))
    return policy.loss(params, loss_rng, batch), chunks


def errors(chunks: Array, actions: Array, mask: Array) -> Array:
    """Root mean square errors [..., B] of action chunks [..., B, Tp, Da].

    The mean is over dimensions and recorded steps. actions: [B, Tp, Da], the demonstrated ones.
    mask: [B, Tp], 1 where the step was recorded, 0 where it is padding.
    """
    square = jnp.square(chunks - actions).mean(-1) * mask  # [..., B, Tp]
    return jnp.sqrt(square.sum(-1) / mask.sum(-1))


def spread(actions: np.ndarray, mask: np.ndarray) -> float:
    """Root mean square distance of recorded actions [B, Tp, Da] from their mean, data's units.

    It is the error of a policy that always takes the mean action, which an error should be far
    below. mask: see `errors`.
    """
    # Padding repeats recorded steps, so it must not count.
    recorded = actions[mask > 0]  # [steps, Da]
    return float(np.sqrt(np.square(recorded - recorded.mean(0)).mean()))


def table(entries: Sequence[Mapping], best: int, samples: int) -> str:
    """One line per checkpoint: its step, its loss and the errors of its action chunks.

    entries: with "step", "loss", "action_error" and "action_error_best". best: the position of
    the entry that is marked. samples: action chunks per window.
    """
    # Numbers below their titles, right-aligned.
    lines = [f"{'step':>8} {'loss':>10} {'action error':>13} {f'best of {samples}':>11}"]
    for i, entry in enumerate(entries):
        mark = "  lowest" if i == best else ""
        lines.append(
            f"{entry['step']:>8} {entry['loss']:>10.4g} {entry['action_error']:>13.4g} "
            f"{entry['action_error_best']:>11.4g}{mark}"
        )
    return "\n".join(lines)
