"""The training state: everything that changes from one step to the next, as one frozen tree."""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import optax

from dpjax.core.types import Array, Params


@struct.dataclass
class TrainState:
    """What the next step needs and a resume restores.

    step: [] int32, the number of optimizer steps done.
    params: {"encoder", "denoiser", "normalizer"}, float32.
    ema: the same tree, with the exponential moving average of the weights.
    ema_count: [] int32, the number of EMA updates done (n in `optim.ema_decay`).
    opt_state: state of the optax transformation, for the trained part of params only.
    """

    # `checkpoint.layout.items` names every field: a new one must be added there to be saved.
    step: Array
    params: Params
    ema: Params
    ema_count: Array
    opt_state: Any


def trained(params: Params) -> Params:
    """The part of params that is optimized, averaged and decayed."""
    # The only place that defines which part this is. The normalizer is computed from data.
    return {key: value for key, value in params.items() if key != "normalizer"}


def create(params: Params, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(
        step=jnp.zeros([], jnp.int32),
        params=params,
        # A copy, since the step donates its state and a buffer cannot be donated twice.
        ema=jax.tree.map(jnp.array, params),
        ema_count=jnp.zeros([], jnp.int32),
        # Adam's moments exist for the trained part only: the normalizer has no gradient.
        opt_state=tx.init(trained(params)),
    )
