"""Weights of the authors' ConditionalUnet1D as ours, and our gradients as theirs."""

import numpy as np

from dpjax.nets.unet1d import UNet1D


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


def block_names(meta: dict) -> list[str]:
    """Their residual blocks in the order in which x meets them, then the local one."""
    levels = len(meta["down_dims"])
    return [
        *(f"down_modules.{i}.{j}" for i in range(levels) for j in range(2)),
        *(f"mid_modules.{j}" for j in range(2)),
        *(f"up_modules.{i}.{j}" for i in range(levels - 1) for j in range(2)),
        *(["local_cond_encoder.0"] if meta["local_cond_dim"] else []),
    ]


def our_name(i: int, name: str) -> str:
    return "local_block" if name.startswith("local") else f"blocks_{i}"


def linear(weights, name):
    return {"kernel": weights[name + ".weight"].T, "bias": weights[name + ".bias"]}


def conv(weights, name):
    kernel = weights[name + ".weight"].transpose(2, 1, 0)  # [out, in, k] -> [k, in, out]
    return {"kernel": kernel, "bias": weights[name + ".bias"]}


def up(weights, name):
    kernel = weights[name + ".weight"].transpose(2, 0, 1)  # [in, out, k] -> [k, in, out]
    return {"kernel": kernel, "bias": weights[name + ".bias"]}


def conv_block(weights, name):
    return {
        "conv": conv(weights, name + ".block.0"),
        "scale": weights[name + ".block.1.weight"],
        "bias": weights[name + ".block.1.bias"],
    }


def block(weights, name):
    parts = {f"block{i}": conv_block(weights, f"{name}.blocks.{i}") for i in range(2)}
    if name + ".residual_conv.weight" in weights:
        parts["shortcut"] = conv(weights, name + ".residual_conv")
    return parts


def ours(weights: dict, meta: dict) -> dict:
    """Their state dict as our params."""
    levels, split = len(meta["down_dims"]), meta["diffusion_step_embed_dim"]
    names = block_names(meta)
    film = [linear(weights, name + ".cond_encoder.1") for name in names]
    kernel = np.concatenate([part["kernel"] for part in film], axis=1)
    return {
        **{our_name(i, name): block(weights, name) for i, name in enumerate(names)},
        **{f"downs_{i}": conv(weights, f"down_modules.{i}.2.conv") for i in range(levels - 1)},
        **{f"ups_{i}": up(weights, f"up_modules.{i}.2.conv") for i in range(levels - 1)},
        "film": {
            "time": kernel[:split],  # torch.cat([time, global_cond])
            "obs": kernel[split:],
            "bias": np.concatenate([part["bias"] for part in film]),
        },
        "time_in": linear(weights, "diffusion_step_encoder.1"),
        "time_out": linear(weights, "diffusion_step_encoder.3"),
        "last_block": conv_block(weights, "final_conv.0"),
        "last": conv(weights, "final_conv.1"),
    }


def norms(grads: dict, meta: dict) -> dict[str, float]:
    """L2 norms of our gradients, by their parameters' names."""
    levels = len(meta["down_dims"])
    out = {}

    def put(name, part):
        out[name + ".weight"], out[name + ".bias"] = part["kernel"], part["bias"]

    def put_conv_block(name, part):
        put(name + ".block.0", part["conv"])
        put(name + ".block.1", {"kernel": part["scale"], "bias": part["bias"]})

    start = 0
    for i, name in enumerate(block_names(meta)):
        part = grads[our_name(i, name)]
        for j in range(2):
            put_conv_block(f"{name}.blocks.{j}", part[f"block{j}"])
        if "shortcut" in part:
            put(name + ".residual_conv", part["shortcut"])
        width = len(part["block0"]["bias"]) * (2 if meta["cond_predict_scale"] else 1)
        columns = slice(start, start + width)
        film = {key: leaf[..., columns] for key, leaf in grads["film"].items()}
        kernel = np.concatenate([film["time"], film["obs"]])
        put(name + ".cond_encoder.1", {"kernel": kernel, "bias": film["bias"]})
        start += width
    for i in range(levels - 1):
        put(f"down_modules.{i}.2.conv", grads[f"downs_{i}"])
        put(f"up_modules.{i}.2.conv", grads[f"ups_{i}"])
    put("diffusion_step_encoder.1", grads["time_in"])
    put("diffusion_step_encoder.3", grads["time_out"])
    put_conv_block("final_conv.0", grads["last_block"])
    put("final_conv.1", grads["last"])
    return {name: float(np.linalg.norm(leaf)) for name, leaf in out.items()}
