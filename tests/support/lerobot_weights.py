"""Weights of LeRobot's DiffusionModel as our params, for the tests of its networks."""

from flax import traverse_util
import jax
import jax.numpy as jnp

from dpjax.interop import networks, weight_map
from dpjax.interop.lerobot import tables
from dpjax.nets.encoders import Cameras
from support import checkpoints, torch_unet

TIME_SIZE = 128  # numbers of LeRobot's embedding of the diffusion time

weights = checkpoints.weights


def unet_meta(meta: dict, cond_dim: int) -> dict:
    """LeRobot's U-Net as `torch_unet` describes one."""
    return {
        "input_dim": meta["action_dim"],
        "down_dims": meta["down_dims"],
        "kernel_size": 5,
        "n_groups": 8,
        "diffusion_step_embed_dim": TIME_SIZE,
        "cond_predict_scale": True,
        "global_cond_dim": cond_dim,
        "local_cond_dim": None,
    }


def unet(state: dict, meta: dict) -> dict:
    """The U-Net's params, from LeRobot's state dict."""
    part = {key.removeprefix("unet."): x for key, x in state.items() if key.startswith("unet.")}
    # The layer that makes FiLM's scale and bias reads the time's embedding and the features.
    cond_dim = part["mid_modules.0.cond_encoder.1.weight"].shape[1] - TIME_SIZE
    return torch_unet.params_from(part, unet_meta(meta, cond_dim), networks.LEROBOT)


def cameras(state: dict, meta: dict) -> dict:
    """The params of all cameras' encoders, from LeRobot's state dict."""
    names = meta["cameras"]
    shared = not meta["separate_encoders"]
    # The shapes that our encoders expect; no numbers are computed.
    network = Cameras((), tuple(names), shared)
    images = {name: jnp.zeros((1, 1, 32, 32, 3)) for name in names}
    params = jax.eval_shape(network.init, jax.random.key(0), images)["params"]
    shapes = {path: leaf.shape for path, leaf in traverse_util.flatten_dict(params).items()}
    table = tables.encoder_table(1 if shared else len(names), shared, shapes)
    part = {f"diffusion.{key}": x for key, x in state.items() if key.startswith("rgb_encoder")}
    return weight_map.params_from("golden", table, shapes, part)
