"""Weights of the authors' TransformerForDiffusion as ours, and our gradients as theirs."""

import jax
import jax.numpy as jnp

from dpjax.interop import networks, weight_map
from dpjax.nets.transformer import Transformer
from support import torch_unet

BUFFERS = ("mask", "memory_mask", "_dummy_variable")


def network(meta: dict) -> Transformer:
    """Our transformer with their constructor's arguments."""
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
    """Of our network's leaves."""
    cond = jnp.zeros((1, meta["n_obs_steps"] if meta["cond_dim"] else 0, meta["cond_dim"]))
    inputs = jnp.zeros((1, meta["horizon"], meta["input_dim"])), jnp.zeros(1), cond
    made = jax.eval_shape(network(meta).init, jax.random.key(0), *inputs)["params"]
    return {path: leaf.shape for path, leaf in weight_map.flatten(made).items()}


def ours(weights: dict, meta: dict) -> dict:
    """Their state dict as our params."""
    own = shapes(meta)
    trained = {name: x for name, x in weights.items() if name not in BUFFERS}
    return weight_map.assemble("golden", networks.transformer(own), own, trained)


def norms(grads: dict, meta: dict) -> dict[str, float]:
    """L2 norms of our gradients, by their parameters' names."""
    return torch_unet.norms_of(networks.transformer(shapes(meta)), grads)
