"""Weight tables of the image encoders in Chi et al.'s code.

hybrid   robomimic's ResNet, spatial softmax and linear layer
multi    torchvision's ResNet and average pooling. Our encoder has one more linear layer with
         a ReLU. The layer becomes the identity, and the ReLU changes nothing, because averages
         of a ReLU's outputs are never negative
"""

from collections.abc import Callable, Mapping
import functools
from typing import Any

import numpy as np

from dpjax.interop import resnets
from dpjax.interop.imported import refuse
from dpjax.interop.weight_map import Shapes, Table, WeightEntry

MULTI_PREFIX = "obs_encoder.key_model_map."
# Names under which the arrays of that last layer are added to the file's tensors.
IDENTITY = "(identity)"
ZEROS = "(zeros)"
# Buffers of robomimic's spatial softmax: the pixels' coordinates, which we compute.
BUFFERS = ("pool.pos_x", "pool.pos_y")

# (tensors, function from our leaves' shapes to the weight table)
Prepared = tuple[dict[str, np.ndarray], Callable[[Shapes], Table]]


def prepare(
    source: str, tensors: Mapping, cameras: list[str], encoder: Mapping[str, Any]
) -> Prepared:
    """(the tensors that our encoders read, their weight table).

    encoder: the settings of group "encoder".
    """
    # Average pooling means the multi-image encoder, see `cameras.camera_settings`.
    if encoder["pool"] == "average":
        return prepare_multi(tensors, cameras, encoder["shared"], encoder["features"])
    return prepare_hybrid(source, tensors, cameras)


def prepare_hybrid(source: str, tensors: Mapping, cameras: list[str]) -> Prepared:
    """(the tensors without buffers and aliases, the weight table) of robomimic's encoders."""
    tensors = dict(tensors)
    for key in cameras:
        prefix = f"obs_encoder.obs_nets.{key}."
        # Our spatial softmax has no temperature, so theirs must be 1.
        temperature = tensors.pop(f"{prefix}pool.temperature", np.ones(1))
        if not np.all(temperature == 1):
            raise refuse(source, f"{prefix}pool.temperature", "1", temperature)
        # The buffers hold nothing that was trained.
        for buffer in BUFFERS:
            tensors.pop(prefix + buffer, None)
        # torch saves two modules under a second name: nets.0 is the backbone, nets.1 the pooling.
        for alias, name in (("nets.0.", "backbone."), ("nets.1.", "pool.")):
            _drop_alias(source, tensors, prefix + alias, prefix + name)
    return tensors, functools.partial(hybrid_table, cameras)


def _drop_alias(source: str, tensors: dict, alias: str, prefix: str) -> None:
    """Moves tensors from an alias to their first names; raises UserError if the two differ."""
    for second in [name for name in tensors if name.startswith(alias)]:
        first = prefix + second.removeprefix(alias)
        x = tensors.pop(second)
        # Both names must hold the same numbers. A file may also have only the alias.
        if first in tensors:
            if not np.array_equal(tensors[first], x):
                raise refuse(source, second, f"the numbers of {first}", "others")
        elif not second.endswith(("temperature", "pos_x", "pos_y")):
            tensors[first] = x


def hybrid_table(cameras: list[str], shapes: Shapes) -> Table:
    """The weight table of robomimic's encoders."""
    table: list[WeightEntry] = []
    # Our encoders have numbers, theirs have the names of the cameras.
    for i, key in enumerate(cameras):
        path = (f"encoders_{i}",)
        name = f"obs_encoder.obs_nets.{key}"
        backbone = (*path, "backbone")
        table += resnets.resnet(shapes, backbone, f"{name}.backbone.nets", resnets.NUMBERED)
        table += resnets.keypoints(path, f"{name}.pool.nets", f"{name}.nets.3")
    return tuple(table)


def prepare_multi(tensors: Mapping, cameras: list[str], shared: bool, size: int) -> Prepared:
    """(the tensors and a last layer that is the identity, the weight table)."""
    # Our encoder ends in a linear layer, which must leave the pooled features unchanged.
    last_layer = {IDENTITY: np.eye(size, dtype=np.float32), ZEROS: np.zeros(size, np.float32)}
    names = ["rgb"] if shared else cameras  # a shared encoder is called "rgb"
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
