"""Weights of the authors' TransformerForDiffusion as ours, and our gradients as theirs."""

import numpy as np

from dpjax.nets.transformer import Transformer

ALL = slice(None)


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


def places(meta: dict) -> dict[tuple[str, ...], tuple[str, slice]]:
    """{our leaf: (their tensor, its rows)}."""
    found, width = {}, meta["n_emb"]

    def linear(path, name, rows=ALL, weight=".weight", bias=".bias"):
        found[*path, "kernel"] = (name + weight, rows)
        found[*path, "bias"] = (name + bias, rows)

    def norm(path, name):
        found[*path, "scale"] = (name + ".weight", ALL)
        found[*path, "bias"] = (name + ".bias", ALL)

    def block(ours, name, cross):
        packed = dict(weight="in_proj_weight", bias="in_proj_bias")
        linear((ours, "qkv"), f"{name}.self_attn.", **packed)
        linear((ours, "out_self"), f"{name}.self_attn.out_proj")
        linear((ours, "up"), f"{name}.linear1")
        linear((ours, "down"), f"{name}.linear2")
        norm((ours, "norm_self"), f"{name}.norm1")
        norm((ours, "norm_mlp"), f"{name}.norm{3 if cross else 2}")
        if cross:
            i = ours.split("_")[-1]
            attn = f"{name}.multihead_attn."
            linear((ours, "q"), attn, slice(width), **packed)
            linear((f"memory_kv_{i}",), attn, slice(width, None), **packed)
            linear((ours, "out_cross"), attn + "out_proj")
            norm((ours, "norm_cross"), f"{name}.norm2")

    linear(("action_in",), "input_emb")
    linear(("action_out",), "head")
    norm(("norm_out",), "ln_f")
    found["position",] = ("pos_emb", ALL)
    decoder = meta["time_as_cond"]
    for i in range(meta["n_layer"]):
        stack = "decoder" if decoder else "encoder"
        block(f"blocks_{i}", f"{stack}.layers.{i}", decoder)
    if decoder:
        linear(("obs_in",), "cond_obs_emb")
        found["memory_position",] = ("cond_pos_emb", ALL)
        for i in range(meta["n_cond_layers"]):
            block(f"memory_blocks_{i}", f"encoder.layers.{i}", False)
        if not meta["n_cond_layers"]:
            linear(("memory_up",), "encoder.0")
            linear(("memory_down",), "encoder.2")
    return found


def ours(weights: dict, meta: dict) -> dict:
    """Their state dict as our params."""
    params = {}
    for path, (name, rows) in places(meta).items():
        leaf = weights[name]
        leaf = leaf[0] if leaf.ndim == 3 else leaf[rows].T  # positions lead with a 1
        *parents, last = path
        part = params
        for key in parents:
            part = part.setdefault(key, {})
        part[last] = leaf
    return params


def norms(grads: dict, meta: dict) -> dict[str, float]:
    """L2 norms of our gradients, by their parameters' names."""
    squares = {}
    for path, (name, _) in places(meta).items():
        leaf = grads
        for key in path:
            leaf = leaf[key]
        squares[name] = squares.get(name, 0.0) + float(np.sum(np.square(leaf, dtype=np.float64)))
    return {name: square**0.5 for name, square in squares.items()}
