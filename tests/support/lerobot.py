"""Weights of LeRobot's DiffusionModel as ours."""

import jax
import jax.numpy as jnp

from dpjax.interop import networks, weight_map
from dpjax.interop.lerobot import reader
from dpjax.nets.encoders import Cameras
from support import checkpoints, torch_unet

weights = checkpoints.weights


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
    """The U-Net's params."""
    part = {k.removeprefix("unet."): x for k, x in made.items() if k.startswith("unet.")}
    cond = part["mid_modules.0.cond_encoder.1.weight"].shape[1] - 128
    return torch_unet.ours(part, unet_meta(meta, cond), networks.LEROBOT)


def cameras(made: dict, meta: dict) -> dict:
    """All cameras' encoders."""
    names, shared = meta["cameras"], not meta["separate_encoders"]
    network = Cameras((), tuple(names), shared)
    images = {name: jnp.zeros((1, 1, 32, 32, 3)) for name in names}
    like = jax.eval_shape(network.init, jax.random.key(0), images)["params"]
    own = {path: leaf.shape for path, leaf in weight_map.flatten(like).items()}
    table = reader.encoder_pieces(1 if shared else len(names), shared, own)
    part = {f"diffusion.{k}": x for k, x in made.items() if k.startswith("rgb_encoder")}
    return weight_map.assemble("golden", table, own, part)
