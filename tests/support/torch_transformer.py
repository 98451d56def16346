"""Weights of the authors' TransformerForDiffusion as our params, and norms of our gradients."""

from flax import traverse_util
import jax
import jax.numpy as jnp

from dpjax.interop import networks, weight_map
from dpjax.nets.transformer import Transformer
from support import torch_unet

BUFFERS = ("mask", "memory_mask", "_dummy_variable")


def network(meta: dict) -> Transformer:
    """Our transformer with the arguments of their constructor."""
    return Transformer(
        features=meta["input_dim"],
        horizon=meta["horizon"],
        observed=meta["n_obs_steps"] if meta["cond_dim"] else 0,
        layers=meta["n_layer"],
        heads=meta["n_head"],
        width=meta["n_emb"],
        cond_layers=meta["n_cond_layers"],
        causal=meta["causal_attn"],
        encoder_only=not meta["time_as_cond"],
    )


def shapes(meta: dict) -> weight_map.Shapes:
    """Shapes of our network's leaves."""
    x = jnp.zeros((1, meta["horizon"], meta["input_dim"]))
    cond = jnp.zeros((1, meta["n_obs_steps"] if meta["cond_dim"] else 0, meta["cond_dim"]))
    params = jax.eval_shape(network(meta).init, jax.random.key(0), x, jnp.zeros(1), cond)["params"]
    return {path: leaf.shape for path, leaf in traverse_util.flatten_dict(params).items()}


def params_from(weights: dict, meta: dict) -> dict:
    """Their state dict as our params."""
    leaf_shapes = shapes(meta)
    tensors = {name: x for name, x in weights.items() if name not in BUFFERS}
    table = networks.transformer(leaf_shapes)
    return weight_map.params_from("golden", table, leaf_shapes, tensors)


def norms(grads: dict, meta: dict) -> dict[str, float]:
    """{their name: L2 norm} of our gradients."""
    return torch_unet.norms_of(networks.transformer(shapes(meta)), grads)
