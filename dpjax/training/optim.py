"""The optimizer, and the exponential moving average (EMA) of the weights."""

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
    end: float = 0.0,
    b1: float,
    b2: float,
    eps: float,
    weight_decay: float,
    decay: str = "all",
    scales: Mapping[str, float] | None = None,
) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) with a linear warm-up and a cosine decay.

    Args:
        lr: the learning rate at the end of the warm-up.
        steps: the step at which the learning rate reaches its end, warm-up included.
        warmup: the number of steps in the warm-up.
        end: the learning rate at the end, as a share of lr; 1 keeps it constant.
        b1, b2, eps, weight_decay: as in optax.adamw.
        decay: the leaves that weight decay applies to: "all", or "matrices", which leaves out
            biases, scales of norms and position embeddings, as in minGPT.
        scales: {item of params, such as "encoder": factor on its learning rate}; the default is 1.
            With any scales, even {}, leaves named frozen_… are not trained.
    """
    # For optax, mask=None means that all leaves decay.
    mask = {"all": None, "matrices": weight_matrices}[decay]
    # From 0 to lr in `warmup` steps, then along a cosine to its end at step `steps`.
    schedule = optax.warmup_cosine_decay_schedule(0.0, lr, warmup, steps, end_value=end * lr)
    adam = optax.adamw(schedule, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay, mask=mask)
    if scales is None:
        return adam
    # Scaled after Adam: its normalization would cancel a factor on the gradients.
    return optax.chain(adam, optax.stateless(lambda updates, _: scale_updates(updates, scales)))


def clip_factor(norm: Array, grad_clip: float) -> Array:
    """The factor [] that limits the norm of the gradients to grad_clip; 1 if grad_clip is 0."""
    # A factor and not an optax transformation: multiplied with the factor of the mean over the
    # batch, it saves one pass over all gradients, which is 5 % of a large network's step on a CPU.
    return jnp.minimum(1.0, grad_clip / norm) if grad_clip else jnp.ones_like(norm)


def scale_updates(updates: Params, scales: Mapping[str, float]) -> Params:
    """The updates, each multiplied by the factor of its item, or by 0 if named frozen_…."""

    def scale(path, leaf):
        # The last key of the path is the name of the leaf, the first one is its item of params.
        frozen = "frozen_" in jax.tree_util.keystr(path[-1:])
        return leaf * (0.0 if frozen else scales.get(path[0].key, 1.0))

    return jax.tree_util.tree_map_with_path(scale, updates)


def weight_matrices(params: Params) -> Params:
    """A tree of booleans: True for weights that are multiplied with activations as matrices."""

    def is_matrix(path, leaf):
        # Biases and scales of norms have one axis. Position embeddings have two and are added.
        return leaf.ndim > 1 and "position" not in jax.tree_util.keystr(path)

    return jax.tree_util.tree_map_with_path(is_matrix, params)


def ema_decay(count: Array, *, power: float, largest: float) -> Array:
    """The decay of the EMA after n = `count` earlier updates: min(largest, 1 - n^-power).

    For n < 2 it is 0: the average equals the weights. With power 0.75 it continues with .405, .561,
    …, so the average covers the last part of a run of any length (code of Chi et al. 2023).
    """
    # n = 0 is treated like n = 1: n^-power would be infinite, and the decay of n = 1 is 0.
    n = jnp.maximum(count, 1).astype(jnp.float32)
    return jnp.clip(1 - n**-power, 0.0, largest)
