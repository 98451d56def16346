"""One optimizer step, a pure function of (state, key, batch)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dpjax.core.errors import UserError
from dpjax.core.types import Array, Batch, Metrics, Params
from dpjax.policies.base import Policy
from dpjax.training.optim import clip_factor, ema_decay
from dpjax.training.state import TrainState, trained


def check_accumulation(examples: int, accumulate: int) -> None:
    """Raises a UserError if one device's examples of a batch do not split into equal parts."""
    if examples % accumulate:
        raise UserError(
            f"accumulate={accumulate} does not divide the {examples} examples of a batch per "
            "device: use a divisor of them, or another batch size.",
            argument="accumulate",
        )


def sum_over_parts(one: Callable[[Batch], Any], batch: Batch, parts: int) -> Any:
    """Splits a batch into equal parts and returns the sum of `one(part)`, which is a tree.

    The parts are computed one after another, to save memory. Part j has the examples j, j + parts,
    j + 2 parts, …, so if the batch is spread over devices, each part is too. A part is sliced
    inside the loop, so that the parts do not need a second copy of the batch.
    """
    # A single part needs no loop.
    if parts == 1:
        return one(batch)
    # [B, ...] -> [B / parts, parts, ...]; element j of axis 1 is part j.
    split = jax.tree.map(lambda leaf: leaf.reshape(-1, parts, *leaf.shape[1:]), batch)

    def add(sums, j):
        # One step of the scan: slice part j and add its result to the sums.
        cut = lambda leaf: jax.lax.dynamic_index_in_dim(leaf, j, axis=1, keepdims=False)
        return jax.tree.map(jnp.add, sums, one(jax.tree.map(cut, split))), None

    # The sums start at zero. eval_shape gives the shapes of a part's result without computing it.
    shapes = jax.eval_shape(one, jax.tree.map(lambda leaf: leaf[:, 0], split))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(add, zeros, jnp.arange(parts))[0]


def loss_and_gradient(
    policy: Policy, params: Params, rng: Array, batch: Batch, axis: str | None, accumulate: int
) -> tuple[Array, Metrics, Params]:
    """(loss, sums, gradients of the trained params), each summed over the global batch.

    rng: the step's key.
    axis, accumulate: see `train_step`.
    """

    def sums_of(part):
        # Differentiated with respect to the trained part of params only.
        total = lambda weights: policy.loss({**params, **weights}, rng, part)
        return jax.value_and_grad(total, has_aux=True)(trained(params))

    # Losses and gradients are summed over parts and devices, and only then divided by the sum of
    # weights. So the result is the mean over all examples for every number of parts and devices,
    # even if one device has more padding than another.
    (loss, sums), grads = sum_over_parts(sums_of, batch, accumulate)
    if axis is not None:
        loss, sums, grads = jax.lax.psum((loss, sums, grads), axis)
    return loss, sums, grads


def train_step(
    policy: Policy,
    tx: optax.GradientTransformation,
    state: TrainState,
    rng: Array,
    batch: Batch,
    *,
    ema_power: float,
    ema_max: float,
    grad_clip: float = 0.0,
    axis: str | None = None,
    accumulate: int = 1,
) -> tuple[TrainState, Metrics]:
    """One optimizer step and one EMA step.

    Args:
        rng: the run's key; the step's own key is fold_in(rng, step).
        batch: this device's examples.
        ema_power, ema_max: see `optim.ema_decay`.
        grad_clip: the limit of the global norm of the gradients; 0 for no clipping.
        axis: name of the mapped axis of devices whose examples make up the global batch; None if
            `batch` is the global batch.
        accumulate: the number of parts in which the examples are processed, to save memory. The
            result does not depend on it, up to rounding: the noise of an example is drawn by its
            position in the global batch.

    Returns:
        The next state, and {"loss": mean over the batch, "grad_norm": norm before clipping}.
    """
    # Loss and gradients, summed over all examples of all devices. The step's key follows from its
    # number, so that a resumed run draws the same noise.
    rng = jax.random.fold_in(rng, state.step)
    loss, sums, grads = loss_and_gradient(policy, state.params, rng, batch, axis, accumulate)

    # Division by the sum of weights and clipping, combined in one factor, so that there is one
    # pass over the gradients.
    weight = sums["weight"]
    norm = optax.tree.norm(grads) / weight
    factor = clip_factor(norm, grad_clip) / weight
    grads = jax.tree.map(lambda leaf: leaf * factor, grads)

    # The optimizer updates the trained part of params; the normalizer stays as it is.
    updates, opt_state = tx.update(grads, state.opt_state, trained(state.params))
    weights = optax.apply_updates(trained(state.params), updates)

    # EMA of the new weights: ema <- decay * ema + (1 - decay) * weights.
    decay = ema_decay(state.ema_count, power=ema_power, largest=ema_max)
    ema = optax.incremental_update(weights, trained(state.ema), 1 - decay)

    # The normalizer is taken over from the old state.
    state = TrainState(
        step=state.step + 1,
        params={**state.params, **weights},
        ema={**state.ema, **ema},
        ema_count=state.ema_count + 1,
        opt_state=opt_state,
    )
    return state, {"loss": loss / weight, "grad_norm": norm}
