"""Weight tables of LeRobot's diffusion policy, for reading and for writing."""

import numpy as np

from dpjax.interop import networks, resnets
from dpjax.interop.imported import Settings, feature_order
from dpjax.interop.lerobot.stats import Features
from dpjax.interop.weight_map import Shapes, Table, WeightEntry

MODEL = "diffusion."  # prefix of the names of all weights


def order_of(features: Features, settings: Settings) -> np.ndarray:
    """For each of our features, its index in LeRobot's vector of all observed steps: int [To F]."""
    # {feature: size} in LeRobot's order; a camera has as many features as its encoder returns.
    sizes = {
        name: settings["encoder"]["features"] if feature_type == "VISUAL" else shape[0]
        for name, (feature_type, shape) in features.items()
        if feature_type != "ACTION"
    }
    # Numbers first, then cameras. The sort is stable, so it keeps the order within each.
    ours = sorted(sizes, key=lambda name: features[name][0] == "VISUAL")
    return feature_order(sizes, ours, settings["horizon"]["obs"])


def encoder_count(features: Features, shared: bool) -> int:
    """How many encoders a policy has: one per camera, or one shared by all."""
    cameras = sum(feature_type == "VISUAL" for feature_type, _ in features.values())
    # A policy without cameras has no encoder, shared or not.
    return min(cameras, 1) if shared else cameras


def encoder_name(i: int, shared: bool) -> str:
    """Name of an encoder's module; a shared encoder has no number."""
    return f"{MODEL}rgb_encoder" + ("" if shared else f".{i}")


def encoder_table(count: int, shared: bool, shapes: Shapes) -> Table:
    """The weight table of `count` encoders."""
    table: list[WeightEntry] = []
    for i in range(count):
        # A ResNet, then the spatial softmax and its linear layer.
        path = (f"encoders_{i}",)
        name = encoder_name(i, shared)
        backbone = (*path, "backbone")
        table += resnets.resnet(shapes, backbone, f"{name}.backbone", resnets.NUMBERED)
        table += resnets.keypoints(path, f"{name}.pool.nets", f"{name}.out")
    return tuple(table)


def denoiser_table(order: np.ndarray, shapes: Shapes) -> Table:
    """The weight table of the U-Net."""
    return networks.unet(shapes, networks.LEROBOT, f"{MODEL}unet.", order)
