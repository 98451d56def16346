"""Weight tables of other libraries' ResNets, and the folding of their BatchNorms."""

from typing import NamedTuple

import numpy as np

from dpjax.interop.networks import conv
from dpjax.interop.weight_map import Path, Shapes, Table, linear, norm

EPSILON = 1e-5  # added to the variance by torch's BatchNorm
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of a BatchNorm
# The order in which our kernels have the axes of torch's.
CONV2D = (2, 3, 1, 0)  # [out, in, h, w] -> [h, w, in, out]


class ResNetNames(NamedTuple):
    """Names of a ResNet's first convolution, the norm after it, and the four stages."""

    conv: str
    norm: str
    stages: tuple[str, str, str, str]


NUMBERED = ResNetNames("0", "1", ("4", "5", "6", "7"))  # a torch Sequential of the same layers
TORCHVISION = ResNetNames("conv1", "bn1", ("layer1", "layer2", "layer3", "layer4"))


def resnet(shapes: Shapes, path: Path, name: str, names: ResNetNames) -> Table:
    """The table of a `nets.resnet.ResNet` at `path`, with GroupNorms or frozen norms."""

    def norm_entries(part, name):
        # The leaves of our frozen norms have another name, by which the optimizer skips them.
        frozen = "frozen_" if (*path, *part, "frozen_scale") in shapes else ""
        return norm((*path, *part), name, f"{frozen}scale", f"{frozen}bias")

    def conv_entries(part, name):
        return conv((*path, *part), name, CONV2D, bias=False)

    # The stem, then block by block.
    table = [*conv_entries(("conv",), f"{name}.{names.conv}")]
    table += norm_entries(("norm",), f"{name}.{names.norm}")
    children = {leaf[len(path)] for leaf in shapes if leaf[: len(path)] == path}
    for block in sorted(child for child in children if child.startswith("stage")):
        # stage<s>_<i> is the i-th block of stage s.
        stage, i = block.removeprefix("stage").split("_")
        block_name = f"{name}.{names.stages[int(stage)]}.{i}"
        # A basic block: two convolutions, each with its norm.
        for j in range(2):
            table += conv_entries((block, f"conv{j}"), f"{block_name}.conv{j + 1}")
            table += norm_entries((block, f"norm{j}"), f"{block_name}.bn{j + 1}")
        if (*path, block, "shortcut", "kernel") in shapes:
            table += conv_entries((block, "shortcut"), f"{block_name}.downsample.0")
            table += norm_entries((block, "shortcut_norm"), f"{block_name}.downsample.1")
    return tuple(table)


def keypoints(path: Path, pool: str, out: str) -> Table:
    """Entries of the spatial softmax's maps and of the linear layer after them."""
    return (*conv((*path, "maps"), pool, CONV2D), *linear((*path, "out"), out))


def fold_batch_norms(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors with every BatchNorm's statistics folded into its weight and bias.

    scale = weight / √(var + 1e-5) and bias = bias - mean · scale replace weight and bias. The
    statistics are left out.
    """
    folded = {name: x for name, x in tensors.items() if name.split(".")[-1] not in STATISTICS}
    for name in tensors:
        layer, _, part = name.rpartition(".")
        others = [f"{layer}.{other}" for other in ("running_var", "weight", "bias")]
        # Each BatchNorm is folded once, when its mean is reached. Other norms have no statistics.
        if part != "running_mean" or any(other not in tensors for other in others):
            continue
        var, weight, bias = (tensors[other] for other in others)
        # In float32, as torch's BatchNorm computes it in evaluation.
        scale = weight / np.sqrt(var + np.float32(EPSILON))
        folded[f"{layer}.weight"] = scale
        folded[f"{layer}.bias"] = bias - tensors[name] * scale
    return folded
