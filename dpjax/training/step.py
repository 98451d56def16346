"""One optimizer step, a pure function of (state, key, batch)."""

import functools

import jax
import optax

from dpjax.policy import Policy
from dpjax.training.optim import ema_decay
from dpjax.training.state import TrainState, trained
from dpjax.types import Array, Batch, Metrics


def train_step(
    policy: Policy,
    tx: optax.GradientTransformation,
    state: TrainState,
    rng: Array,
    batch: Batch,
    *,
    ema_power: float,
    ema_max: float,
    axis: str | None = None,
) -> tuple[TrainState, Metrics]:
    """One optimizer step and one EMA step.

    rng: the run's key; the step's own is `fold_in(rng, step)`.
    axis: names the devices whose rows make up the batch. Sums and gradients of sums
        are added over them before anything is divided, so that the result is the mean
        over all rows however they are spread.
    """
    rng = jax.random.fold_in(rng, state.step)

    def total(weights):
        return policy.loss({**state.params, **weights}, rng, batch)

    (loss, sums), grads = jax.value_and_grad(total, has_aux=True)(trained(state.params))
    if axis is not None:
        loss, sums, grads = jax.lax.psum((loss, sums, grads), axis)
    mean = functools.partial(jax.tree.map, lambda leaf: leaf / sums["weight"])
    loss, grads = mean(loss), mean(grads)

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
    return state, {"loss": loss, "grad_norm": optax.tree.norm(grads)}
