"""One optimizer step, a pure function of (state, key, batch)."""

import jax
import jax.numpy as jnp
import optax

from dpjax.core.errors import UserError
from dpjax.core.types import Array, Batch, Metrics
from dpjax.policies.base import Policy
from dpjax.training.optim import ema_decay, clip_factor
from dpjax.training.state import TrainState, trained


def check_accumulation(rows: int, parts: int) -> None:
    """Refuses a device's rows of a batch that `accumulate` cannot split evenly."""
    if rows % parts:
        raise UserError(
            f"config.train.accumulate={parts} does not divide the {rows} rows that a device "
            "has of config.train.batch: use a divisor of them, or another batch."
        )


def in_parts(one, batch: Batch, parts: int):
    """The sum of `one(part of batch)`, a tree, over `parts` parts, one after the other.

    Part j has the rows j, j + parts, …: where the batch is spread over devices, each part
    is too. A part is cut out when its turn comes; nothing of the batch is held twice.
    """
    if parts == 1:
        return one(batch)
    split = jax.tree.map(lambda leaf: leaf.reshape(-1, parts, *leaf.shape[1:]), batch)

    def add(sums, j):
        cut = lambda leaf: jax.lax.dynamic_index_in_dim(leaf, j, axis=1, keepdims=False)
        return jax.tree.map(jnp.add, sums, one(jax.tree.map(cut, split))), None

    shapes = jax.eval_shape(one, jax.tree.map(lambda leaf: leaf[:, 0], split))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return jax.lax.scan(add, zeros, jnp.arange(parts))[0]


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

    rng: the run's key; the step's own is `fold_in(rng, step)`.
    grad_clip: of the norm of all gradients together; 0 for none.
    axis: names the devices whose rows make up the batch. Sums and gradients of sums
        are added over them before anything is divided, so that the result is the mean
        over all rows however they are spread.
    accumulate: parts that the rows are worked through in, added in the same way; a row's
        noise comes from its number in the batch, so the step is the same.
    """
    rng = jax.random.fold_in(rng, state.step)

    def sums_of(part):
        total = lambda weights: policy.loss({**state.params, **weights}, rng, part)
        return jax.value_and_grad(total, has_aux=True)(trained(state.params))

    (loss, sums), grads = in_parts(sums_of, batch, accumulate)
    if axis is not None:
        loss, sums, grads = jax.lax.psum((loss, sums, grads), axis)
    weight = sums["weight"]
    norm = optax.tree.norm(grads) / weight
    factor = clip_factor(norm, grad_clip) / weight
    grads = jax.tree.map(lambda leaf: leaf * factor, grads)

    updates, opt_state = tx.update(grads, state.opt_state, trained(state.params))
    weights = optax.apply_updates(trained(state.params), updates)
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
