"""torchvision's ResNets, trained on ImageNet, as `nets.resnet.ResNet` with frozen norms.

BatchNorm is folded into a scale and a bias a channel, with the statistics it was
trained with:

    scale = weight / √(var + 1e-5),    bias = bias - mean · scale             (1)
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from dpjax.core.errors import UserError
from dpjax.nets.resnet import BLOCKS

EPSILON = 1e-5  # torch's default, which torchvision keeps
UNUSED = ("fc.weight", "fc.bias")  # the classifier


def read(path: str | Path) -> dict[str, np.ndarray]:
    """{name: array} of a .safetensors or .npz file."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected weights, .safetensors or .npz.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # whatever the two readers raise
        raise UserError(
            f"{path}: can't be read as weights, .safetensors or .npz "
            f"({type(error).__name__}: {str(error)[:120]})."
        ) from error


def resnet(path: str | Path, depth: int) -> dict:
    """The params of `ResNet(depth, 64, "frozen")` from torchvision's state dict in a file."""
    state = read(path)
    params, left = _params(state, depth, str(path))
    left = [key for key in left if key not in UNUSED and not key.endswith("num_batches_tracked")]
    if left:
        raise UserError(
            f"{path}: {len(left)} arrays are not of a ResNet-{depth}, the first is {left[0]!r}."
        )
    return params


def _params(state: Mapping[str, np.ndarray], depth: int, source: str) -> tuple[dict, list[str]]:
    """The params, and the names in `state` that are none of theirs."""
    rest = dict(state)

    def take(name):
        if name not in rest:
            raise UserError(f"{source}: no array {name!r}: not the weights of a ResNet-{depth}.")
        return np.asarray(rest.pop(name), np.float32)

    def conv(name):
        return {"kernel": take(f"{name}.weight").transpose(2, 3, 1, 0)}  # OIHW -> HWIO

    def norm(name):
        parts = ("weight", "bias", "running_mean", "running_var")
        weight, bias, mean, var = (take(f"{name}.{part}") for part in parts)
        scale = weight / np.sqrt(var + EPSILON)
        return {"frozen_scale": scale, "frozen_bias": bias - mean * scale}

    params = {"conv": conv("conv1"), "norm": norm("bn1")}
    for stage, blocks in enumerate(BLOCKS[depth]):
        for i in range(blocks):
            name = f"layer{stage + 1}.{i}"
            block = {
                "conv0": conv(f"{name}.conv1"),
                "norm0": norm(f"{name}.bn1"),
                "conv1": conv(f"{name}.conv2"),
                "norm1": norm(f"{name}.bn2"),
            }
            if stage and not i:
                block["shortcut"] = conv(f"{name}.downsample.0")
                block["shortcut_norm"] = norm(f"{name}.downsample.1")
            params[f"stage{stage}_{i}"] = block
    return params, list(rest)
