"""What a training run is, between two steps: one frozen tree."""

from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import optax

from dpjax.core.types import Array, Params


@struct.dataclass
class TrainState:
    """Everything that the next step needs, and everything that a resume restores.

    step: [] int32, optimizer steps done.
    params: {"encoder", "denoiser", "normalizer"}, float32 master weights.
    ema: the same tree, averaged.
    ema_count: [] int32, earlier EMA updates (the n of `optim.ema_decay`).
    opt_state: of the optax transformation, for the trained part of params only.
    """

    step: Array
    params: Params
    ema: Params
    ema_count: Array
    opt_state: Any


def trained(params: Params) -> Params:
    """The part of params that is optimized, averaged and decayed.

    The one place that knows it: the normalizer is data, not weights.
    """
    return {key: value for key, value in params.items() if key != "normalizer"}


def create(params: Params, tx: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    return TrainState(
        step=jnp.zeros([], jnp.int32),
        params=params,
        ema=jax.tree.map(jnp.array, params),
        ema_count=jnp.zeros([], jnp.int32),
        opt_state=tx.init(trained(params)),
    )
