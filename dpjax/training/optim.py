"""The optimizer and the average of its iterates."""

import jax.numpy as jnp
import optax

from dpjax.types import Array


def adamw(
    *,
    lr: float,
    steps: int,
    warmup: int,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
    grad_clip: float,
) -> optax.GradientTransformation:
    """AdamW under a cosine with linear warm-up, after clipping the gradient's norm.

    steps: where the cosine reaches 0, the warm-up included. grad_clip: 0 for none.
    """
    schedule = optax.warmup_cosine_decay_schedule(0.0, lr, warmup, steps)
    adam = optax.adamw(schedule, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)
    return optax.chain(optax.clip_by_global_norm(grad_clip), adam) if grad_clip else adam


def ema_decay(count: Array, *, power: float, largest: float) -> Array:
    """Decay of the EMA after `count` earlier updates: min(largest, 1 - n^-power).

    0 for n < 2 (the average is the weights), then .405, .561, …: an average over the
    last part of the run, whatever its length (Chi et al. 2023, code).
    """
    n = jnp.maximum(count, 1).astype(jnp.float32)
    return jnp.clip(1 - n**-power, 0.0, largest)
