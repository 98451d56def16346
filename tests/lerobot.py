"""Weights of LeRobot's DiffusionModel as ours."""

import numpy as np
import torch_unet


def weights(meta: dict) -> dict[str, np.ndarray]:
    """The golden files' state dict, drawn as their README says."""
    rng, shapes = np.random.default_rng(meta["seed"]), meta["shapes"]
    made = {}
    for name in sorted(shapes):
        shape = shapes[name]
        if name.endswith("pos_grid"):
            continue
        n = rng.standard_normal(shape).astype(np.float32)
        if len(shape) > 1:
            made[name] = n / np.float32(np.sqrt(np.prod(shape[1:])))
        elif name.endswith("weight"):
            made[name] = 1 + np.float32(0.1) * n
        else:
            made[name] = np.float32(0.1) * n
    return made


def unet_meta(meta: dict, cond_dim: int) -> dict:
    """Our torch_unet's description of LeRobot's U-Net."""
    return {
        "input_dim": meta["action_dim"],
        "down_dims": meta["down_dims"],
        "kernel_size": 5,
        "n_groups": 8,
        "diffusion_step_embed_dim": 128,
        "cond_predict_scale": True,
        "global_cond_dim": cond_dim,
        "local_cond_dim": None,
    }


def unet(made: dict, meta: dict) -> dict:
    """The U-Net's tensors by the original's names."""
    out = {}
    for name, tensor in made.items():
        if not name.startswith("unet."):
            continue
        name = name.removeprefix("unet.")
        for i in range(2):
            name = name.replace(f".conv{i + 1}.", f".blocks.{i}.")
        parts = name.split(".")
        if parts[0] in ("down_modules", "up_modules") and parts[2] == "2":
            parts.insert(3, "conv")
        out[".".join(parts)] = tensor
    return torch_unet.ours(out, unet_meta(meta, 0))


def _conv(tensor):
    return {"kernel": tensor.transpose(2, 3, 1, 0)}  # [out, in, h, w] -> [h, w, in, out]


def _norm(made, name):
    return {"scale": made[name + ".weight"], "bias": made[name + ".bias"]}


def camera(made: dict, prefix: str) -> dict:
    """One camera's ImageEncoder."""
    body = prefix + ".backbone"
    net = {"conv": _conv(made[body + ".0.weight"]), "norm": _norm(made, body + ".1")}
    for stage in range(4):
        for i in range(2):
            name = f"{body}.{4 + stage}.{i}"
            block = {}
            for j in range(2):
                block[f"conv{j}"] = _conv(made[f"{name}.conv{j + 1}.weight"])
                block[f"norm{j}"] = _norm(made, f"{name}.bn{j + 1}")
            if f"{name}.downsample.0.weight" in made:
                block["shortcut"] = _conv(made[f"{name}.downsample.0.weight"])
                block["shortcut_norm"] = _norm(made, f"{name}.downsample.1")
            net[f"stage{stage}_{i}"] = block
    maps = _conv(made[prefix + ".pool.nets.weight"])
    maps["bias"] = made[prefix + ".pool.nets.bias"]
    return {"backbone": net, "maps": maps, "out": torch_unet.linear(made, prefix + ".out")}


def cameras(made: dict, meta: dict) -> dict:
    """All cameras' encoders."""
    if not meta["separate_encoders"]:
        return {"encoders_0": camera(made, "rgb_encoder")}
    return {
        f"encoders_{i}": camera(made, f"rgb_encoder.{i}") for i in range(len(meta["cameras"]))
    }
