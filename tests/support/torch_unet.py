"""Weights of the authors' ConditionalUnet1D as our params, and norms of our gradients by name."""

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from dpjax.interop import networks, weight_map
from dpjax.nets.unet1d import UNet1D

UNUSED = "local_cond_encoder.1."  # a block that the authors' network never calls


def network(meta: dict) -> UNet1D:
    """Our U-Net with the arguments of their constructor."""
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
    """Shapes of our network's leaves."""
    steps = 2 ** len(meta["down_dims"])
    cond_dim = meta["local_cond_dim"] or meta["global_cond_dim"] or 0
    cond = jnp.zeros((1, steps if meta["local_cond_dim"] else 1, cond_dim))
    x = jnp.zeros((1, steps, meta["input_dim"]))
    params = jax.eval_shape(network(meta).init, jax.random.key(0), x, jnp.zeros(1), cond)["params"]
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(params).items()}


def params_from(weights: dict, meta: dict, names: networks.UNetNames = networks.CHI2023) -> dict:
    """Their state dict as our params."""
    leaf_shapes = shapes(meta)
    tensors = {name: x for name, x in weights.items() if not name.startswith(UNUSED)}
    table = networks.unet(leaf_shapes, names)
    return weight_map.params_from("golden", table, leaf_shapes, tensors)


def norms_of(table: weight_map.Table, grads: dict) -> dict[str, float]:
    """{their name: L2 norm} of our gradients."""
    leaves = traverse_util.flatten_dict(grads)
    squares: dict[str, float] = {}
    for entry in table:
        part = leaves[entry.path][entry.index]
        square = float(np.sum(np.square(part, dtype=np.float64)))
        squares[entry.name] = squares.get(entry.name, 0.0) + square
    return {name: square**0.5 for name, square in squares.items()}


def norms(grads: dict, meta: dict) -> dict[str, float]:
    """{their name: L2 norm} of the U-Net's gradients."""
    return norms_of(networks.unet(shapes(meta)), grads)
