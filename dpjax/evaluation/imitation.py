"""How well a policy imitates demonstrations that it was not trained on: numbers and a table."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dpjax.core.types import Array, Batch, Metrics, Params
from dpjax.policies.base import Policy


def validate(policy: Policy, params: Params, rng: Array, batch: Batch, samples: int) -> Metrics:
    """Loss of a batch, and errors of sampled action chunks in the data's units.

    Over several samples it returns the mean error and the smallest error. A demonstration shows one
    of several right ways, and a sample may show another (diffusion_policy issue 22).
    """
    # The loss is a sum over examples; "weight" is the number of examples that count.
    (total, sums), chunks = loss_and_samples(policy, params, rng, batch, samples)
    sample_errors = errors(chunks, batch.actions, batch.mask)  # [samples, B]
    return {
        "val_loss": total / sums["weight"],
        "val_action_error": sample_errors.mean(),
        # Of each example's samples the one that is closest to the demonstration.
        "val_action_error_best": sample_errors.min(0).mean(),
    }


def loss_and_samples(
    policy: Policy, params: Params, rng: Array, batch: Batch, samples: int
) -> tuple[tuple[Array, Metrics], Array]:
    """The loss of a batch as `policy.loss` gives it, and action chunks [samples, B, Tp, Da]."""
    loss_rng, sample_rng = jax.random.split(rng)
    sample = lambda key: policy.sample(params, key, batch.obs)
    # `map` draws one sample after the other; `vmap` would take `samples` times the memory.
    chunks = jax.lax.map(sample, jax.random.split(sample_rng, samples))
    return policy.loss(params, loss_rng, batch), chunks


def errors(chunks: Array, actions: Array, mask: Array) -> Array:
    """Root mean square errors [..., B] of action chunks [..., B, Tp, Da].

    The mean is over dimensions and recorded steps. actions: [B, Tp, Da], the demonstrated ones.
    mask: [B, Tp], 1 where the step was recorded, 0 where it is padding.
    """
    # The mean over dimensions first, then over the steps that the mask counts.
    square = jnp.square(chunks - actions).mean(-1) * mask  # [..., B, Tp]
    return jnp.sqrt(square.sum(-1) / mask.sum(-1))


def spread(actions: np.ndarray, mask: np.ndarray) -> float:
    """Root mean square distance of recorded actions [B, Tp, Da] from their mean, in data units.

    A policy that always takes the mean action would have this error. A trained policy's error
    should be far below. mask: see `errors`.
    """
    # Padding repeats recorded steps, so it is left out.
    recorded = actions[mask > 0]  # [steps, Da]
    return float(np.sqrt(np.square(recorded - recorded.mean(0)).mean()))


def table(entries: Sequence[Mapping], best: int, samples: int) -> str:
    """A table for the terminal, one line per checkpoint: step, loss and action errors.

    entries: dicts with "step", "loss", "action_error" and "action_error_best". best: the position
    of the entry that is marked. samples: action chunks per window.
    """
    # The titles, right-aligned as the numbers below them are.
    lines = [f"{'step':>8} {'loss':>10} {'action error':>13} {f'best of {samples}':>11}"]
    for i, entry in enumerate(entries):
        mark = "  lowest" if i == best else ""
        lines.append(
            f"{entry['step']:>8} {entry['loss']:>10.4g} {entry['action_error']:>13.4g} "
            f"{entry['action_error_best']:>11.4g}{mark}"
        )
    return "\n".join(lines)
