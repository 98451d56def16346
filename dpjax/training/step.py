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
    """The sum of `one(part of batch)`, a tree, over equal parts, computed one after another.

    Part j has the examples j, j + parts, j + 2 parts, …: if the batch is spread over devices, so is
    each part. A part is cut out when it is needed, so nothing of the batch is in memory twice.
    """
    # A single part needs no loop and no copy.
    if parts == 1:
        return one(batch)
    # [B, ...] -> [B / parts, parts, ...]
    split = jax.tree.map(lambda leaf: leaf.reshape(-1, parts, *leaf.shape[1:]), batch)

    def add(sums, j):
        cut = lambda leaf: jax.lax.dynamic_index_in_dim(leaf, j, axis=1, keepdims=False)
        return jax.tree.map(jnp.add, sums, one(jax.tree.map(cut, split))), None

    # The sums start at zero; their shapes are those of one part's result.
    shapes = jax.eval_shape(one, jax.tree.map(lambda leaf: leaf[:, 0], split))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(add, zeros, jnp.arange(parts))[0]


def loss_and_gradient(
    policy: Policy, params: Params, rng: Array, batch: Batch, axis: str | None, accumulate: int
) -> tuple[Array, Metrics, Params]:
    """(loss, sums, gradients of the trained params), all of them sums over the global batch.

    rng: the step's key. axis, accumulate: see `train_step`.
    """

    def sums_of(part):
        total = lambda weights: policy.loss({**params, **weights}, rng, part)
        return jax.value_and_grad(total, has_aux=True)(trained(params))

    # Losses and gradients are added over parts and devices before anything is divided by the sum
    # of weights. So the result is the mean over all examples however they are spread, and padding
    # on one device cannot skew it.
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
        grad_clip: largest norm of all gradients together; 0 for no clipping.
        axis: name of the mapped axis of devices whose examples make up the batch; None if the
            batch is here in full.
        accumulate: number of parts in which the examples are worked through. The noise of an
            example comes from its number in the batch, so the step is the same for every number.

    Returns:
        The next state, and {"loss": mean over the batch, "grad_norm": before clipping}.
    """
    # Loss and gradient, as sums over all examples of all devices.
    rng = jax.random.fold_in(rng, state.step)
    loss, sums, grads = loss_and_gradient(policy, state.params, rng, batch, axis, accumulate)

    # From sums to means, and clipping. Both are one factor, so that the gradients are passed over
    # once.
    weight = sums["weight"]
    norm = optax.tree.norm(grads) / weight
    factor = clip_factor(norm, grad_clip) / weight
    grads = jax.tree.map(lambda leaf: leaf * factor, grads)

    # The optimizer's step. The normalizer is not among what is trained.
    updates, opt_state = tx.update(grads, state.opt_state, trained(state.params))
    weights = optax.apply_updates(trained(state.params), updates)

    # The average of the weights, this step's included.
    decay = ema_decay(state.ema_count, power=ema_power, largest=ema_max)
    ema = optax.incremental_update(weights, trained(state.ema), 1 - decay)

    state = TrainState(
        step=state.step + 1,
        params={**state.params, **weights},
        ema={**state.ema, **ema},
        ema_count=state.ema_count + 1,
        opt_state=opt_state,
    )
    return state, {"loss": loss / weight, "grad_norm": norm}
