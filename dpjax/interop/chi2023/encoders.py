"""Weight tables of the image encoders in Chi et al.'s code.

hybrid   robomimic's ResNet, spatial softmax and linear layer
multi    torchvision's ResNet and average pooling; here a last layer follows that is the
         identity (the mean of a ReLU is never negative, so its own ReLU changes nothing)
"""

from collections.abc import Callable, Mapping
import functools
from typing import Any

import numpy as np

from dpjax.interop import resnets
from dpjax.interop.imported import refuse
from dpjax.interop.weight_map import Shapes, Table, WeightEntry

MULTI_PREFIX = "obs_encoder.key_model_map."
# Names of the last layer's arrays, which a "multi" policy does not have.
IDENTITY = "(identity)"
ZEROS = "(zeros)"
# Buffers of robomimic's pooling: the pixels' coordinates, which are rebuilt here.
BUFFERS = ("pool.pos_x", "pool.pos_y")

Prepared = tuple[dict[str, np.ndarray], Callable[[Shapes], Table]]


def prepare(
    source: str, tensors: Mapping, cameras: list[str], encoder: Mapping[str, Any]
) -> Prepared:
    """(the tensors as our encoders have them, the encoders' table); encoder: its settings."""
    if encoder["pool"] == "average":
        return prepare_multi(tensors, cameras, encoder["shared"], encoder["features"])
    return prepare_hybrid(source, tensors, cameras)


def prepare_hybrid(source: str, tensors: Mapping, cameras: list[str]) -> Prepared:
    """(the tensors without buffers and second names, the table) of robomimic's encoders."""
    tensors = dict(tensors)
    for key in cameras:
        prefix = f"obs_encoder.obs_nets.{key}."
        # Ours has no temperature: it divides by 1.
        temperature = tensors.pop(f"{prefix}pool.temperature", np.ones(1))
        if not np.all(temperature == 1):
            raise refuse(source, f"{prefix}pool.temperature", "1", temperature)
        # Neither the buffers nor the second names are weights of their own.
        for buffer in BUFFERS:
            tensors.pop(prefix + buffer, None)
        # torch saves these modules twice: nets.0 is the backbone, nets.1 the pooling.
        for alias, name in (("nets.0.", "backbone."), ("nets.1.", "pool.")):
            _drop_alias(source, tensors, prefix + alias, prefix + name)
    return tensors, functools.partial(hybrid_table, cameras)


def _drop_alias(source: str, tensors: dict, alias: str, prefix: str) -> None:
    """Moves tensors under an alias to their own names; refuses two that differ."""
    for second in [name for name in tensors if name.startswith(alias)]:
        first = prefix + second.removeprefix(alias)
        x = tensors.pop(second)
        # Both names must hold the same numbers; a file may also have the alias only.
        if first in tensors:
            if not np.array_equal(tensors[first], x):
                raise refuse(source, second, f"the numbers of {first}", "others")
        elif not second.endswith(("temperature", "pos_x", "pos_y")):
            tensors[first] = x


def hybrid_table(cameras: list[str], shapes: Shapes) -> Table:
    """The weight table of robomimic's encoders."""
    table: list[WeightEntry] = []
    for i, key in enumerate(cameras):  # our encoders are numbered, theirs have the camera's name
        path = (f"encoders_{i}",)
        name = f"obs_encoder.obs_nets.{key}"
        backbone = (*path, "backbone")
        table += resnets.resnet(shapes, backbone, f"{name}.backbone.nets", resnets.NUMBERED)
        table += resnets.keypoints(path, f"{name}.pool.nets", f"{name}.nets.3")
    return tuple(table)


def prepare_multi(tensors: Mapping, cameras: list[str], shared: bool, size: int) -> Prepared:
    """(the tensors and an identity as the last layer, the table) of torchvision's ResNets."""
    # Ours ends in a linear layer. The identity lets the pooled features through unchanged.
    last_layer = {IDENTITY: np.eye(size, dtype=np.float32), ZEROS: np.zeros(size, np.float32)}
    names = ["rgb"] if shared else cameras
    return {**tensors, **last_layer}, functools.partial(multi_table, names)


def multi_table(names: list[str], shapes: Shapes) -> Table:
    """The weight table of torchvision's ResNets."""
    table: list[WeightEntry] = []
    for i, name in enumerate(names):
        path = (f"encoders_{i}",)
        backbone = (*path, "backbone")
        table += resnets.resnet(shapes, backbone, MULTI_PREFIX + name, resnets.TORCHVISION)
        table.append(WeightEntry((*path, "out", "kernel"), IDENTITY))
        table.append(WeightEntry((*path, "out", "bias"), ZEROS))
    return tuple(table)
