"""What a training run is between two steps: one frozen tree."""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import optax

from dpjax.core.types import Array, Params


@struct.dataclass
class TrainState:
    """Everything that the next step needs, and everything that a resume restores.

    step: [] int32, the number of optimizer steps done.
    params: {"encoder", "denoiser", "normalizer"}, float32.
    ema: the same tree, averaged over steps.
    ema_count: [] int32, the number of EMA updates done (n in `optim.ema_decay`).
    opt_state: state of the optax transformation, for the trained part of params only.
    """

    step: Array
    params: Params
    ema: Params
    ema_count: Array
    opt_state: Any


def trained(params: Params) -> Params:
    """The part of params that is optimized, averaged and decayed.

    This is the only place that knows which part: the normalizer is data, not weights.
    """
    return {key: value for key, value in params.items() if key != "normalizer"}


def create(params: Params, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(
        step=jnp.zeros([], jnp.int32),
        params=params,
        # Copies: the step donates its state, and a buffer cannot be donated twice.
        ema=jax.tree.map(jnp.array, params),
        ema_count=jnp.zeros([], jnp.int32),
        # Moments of the trained part alone: the normalizer has no gradient.
        opt_state=tx.init(trained(params)),
    )
