"""The optimizer, and the average of the weights over steps."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from dpjax.core.types import Array, Params


def adamw(
    *,
    lr: float,
    steps: int,
    warmup: int,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
    decay: str = "all",
    scales: Mapping[str, float] | None = None,
) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) with a linear warm-up and a cosine decay.

    Args:
        lr: the rate at the end of the warm-up.
        steps: where the cosine reaches 0, warm-up included.
        warmup: steps of the warm-up.
        b1, b2, eps, weight_decay: as in optax.adamw.
        decay: which leaves decay: "all", or "matrices" (no biases, scales of norms or positions:
            minGPT's groups).
        scales: {item of params, such as "encoder": factor on its rate}; items that are not named
            have factor 1. If given, leaves named frozen_… are not trained.
    """
    # The rate per step, and which leaves decay.
    mask = {"all": None, "matrices": weight_matrices}[decay]
    # From 0 to lr in `warmup` steps, then along a cosine to 0 at `steps`.
    schedule = optax.warmup_cosine_decay_schedule(0.0, lr, warmup, steps)
    adam = optax.adamw(schedule, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=mask)
    if scales is None:
        return adam
    # After Adam, which would divide a factor on the gradients out again.
    return optax.chain(adam, optax.stateless(lambda updates, _: scale_updates(updates, scales)))


def clip_factor(norm: Array, grad_clip: float) -> Array:
    """The factor [] that makes a gradient of this norm at most grad_clip long; 1 if that is 0.

    A factor instead of an optax transformation: the mean over a batch is a factor too, and both in
    one save a pass over all gradients, 5 % of a large network's step on a CPU.
    """
    return jnp.minimum(1.0, grad_clip / norm) if grad_clip else jnp.ones_like(norm)


def scale_updates(updates: Params, scales: Mapping[str, float]) -> Params:
    """The updates times the factor of their item; 0 for leaves named frozen_…."""

    def scale(path, leaf):
        # The leaf's own name, and the item that it belongs to: the ends of its path.
        frozen = "frozen_" in jax.tree_util.keystr(path[-1:])
        return leaf * (0.0 if frozen else scales.get(path[0].key, 1.0))

    return jax.tree_util.tree_map_with_path(scale, updates)


def weight_matrices(params: Params) -> Params:
    """A tree of booleans: True at the leaves that multiply activations."""

    def is_matrix(path, leaf):
        # Biases and scales have one axis; position embeddings are added, not multiplied.
        return leaf.ndim > 1 and "position" not in jax.tree_util.keystr(path)

    return jax.tree_util.tree_map_with_path(is_matrix, params)


def ema_decay(count: Array, *, power: float, largest: float) -> Array:
    """Decay of the EMA after n = `count` earlier updates: min(largest, 1 - n^-power).

    It is 0 for n < 2 (the average is the weights), then .405, .561, … (for power 0.75): an average
    over the last part of the run, however long the run is (Chi et al. 2023, code).
    """
    # n = 1 stands for n = 0 too, where the power is infinite; both give 0.
    n = jnp.maximum(count, 1).astype(jnp.float32)
    return jnp.clip(1 - n**-power, 0.0, largest)
