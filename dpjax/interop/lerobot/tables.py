"""Weight tables of LeRobot's diffusion policy, for reading and for writing."""

import numpy as np

from dpjax.interop import networks, resnets
from dpjax.interop.imported import Settings, feature_order
from dpjax.interop.lerobot.stats import Features
from dpjax.interop.weight_map import Shapes, Table, WeightEntry

MODEL = "diffusion."  # prefix of all weights


def order_of(features: Features, settings: Settings) -> np.ndarray:
    """Index of each of our features among theirs, over all observed steps: int [To F]."""
    sizes = {
        name: settings["encoder"]["features"] if feature_type == "VISUAL" else shape[0]
        for name, (feature_type, shape) in features.items()
        if feature_type != "ACTION"
    }
    ours = sorted(sizes, key=lambda name: features[name][0] == "VISUAL")  # a stable sort
    return feature_order(sizes, ours, settings["horizon"]["obs"])


def encoder_count(features: Features, shared: bool) -> int:
    """How many encoders a policy has: one per camera, or one for all."""
    cameras = sum(feature_type == "VISUAL" for feature_type, _ in features.values())
    return min(cameras, 1) if shared else cameras


def encoder_name(i: int, shared: bool) -> str:
    """The name of an encoder's module; a shared one has no number."""
    return f"{MODEL}rgb_encoder" + ("" if shared else f".{i}")


def encoder_table(count: int, shared: bool, shapes: Shapes) -> Table:
    """The weight table of `count` encoders."""
    table: list[WeightEntry] = []
    for i in range(count):
        path = (f"encoders_{i}",)
        name = encoder_name(i, shared)
        backbone = (*path, "backbone")
        table += resnets.resnet(shapes, backbone, f"{name}.backbone", resnets.NUMBERED)
        table += resnets.keypoints(path, f"{name}.pool.nets", f"{name}.out")
    return tuple(table)


def denoiser_table(order: np.ndarray, shapes: Shapes) -> Table:
    """The weight table of the U-Net."""
    return networks.unet(shapes, networks.LEROBOT, f"{MODEL}unet.", order)
