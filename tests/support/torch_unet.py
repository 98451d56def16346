"""Weights of the authors' ConditionalUnet1D as ours, and our gradients as theirs."""

import jax
import jax.numpy as jnp
import numpy as np

from dpjax.interop import networks, weight_map
from dpjax.nets.unet1d import UNet1D

DEAD = "local_cond_encoder.1."  # a block that the authors' network never reaches


def network(meta: dict) -> UNet1D:
    """Our U-Net with their constructor's arguments."""
    return UNet1D(
        features=meta["input_dim"],
        widths=tuple(meta["down_dims"]),
        kernel_size=meta["kernel_size"],
        groups=meta["n_groups"],
        time_features=meta["diffusion_step_embed_dim"],
        film_scale=meta["cond_predict_scale"],
        local=bool(meta["local_cond_dim"]),
    )


def shapes(meta: dict) -> weight_map.Shapes:
    """Of our network's leaves."""
    steps = 2 ** len(meta["down_dims"])
    cond = (1, steps if meta["local_cond_dim"] else 1)
    cond += (meta["local_cond_dim"] or meta["global_cond_dim"] or 0,)
    inputs = jnp.zeros((1, steps, meta["input_dim"])), jnp.zeros(1), jnp.zeros(cond)
    made = jax.eval_shape(network(meta).init, jax.random.key(0), *inputs)["params"]
    return {path: leaf.shape for path, leaf in weight_map.flatten(made).items()}


def ours(weights: dict, meta: dict, names: networks.Names = networks.ORIGINAL) -> dict:
    """Their state dict as our params."""
    own = shapes(meta)
    alive = {name: x for name, x in weights.items() if not name.startswith(DEAD)}
    return weight_map.assemble("golden", networks.unet(own, names), own, alive)


def norms_of(table, grads: dict) -> dict[str, float]:
    """L2 norms of our gradients, by their parameters' names."""
    squares, leaves = {}, weight_map.flatten(grads)
    for piece in table:
        part = leaves[piece.path][piece.to]
        square = float(np.sum(np.square(part, dtype=np.float64)))
        squares[piece.name] = squares.get(piece.name, 0.0) + square
    return {name: square**0.5 for name, square in squares.items()}


def norms(grads: dict, meta: dict) -> dict[str, float]:
    """Of the U-Net."""
    return norms_of(networks.unet(shapes(meta)), grads)
