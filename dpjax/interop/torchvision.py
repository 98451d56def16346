"""Converts torchvision's ResNets, trained on ImageNet, to params of `nets.resnet.ResNet`.

Every BatchNorm is folded into one scale and one bias per channel, computed from its running
mean and variance:

    scale = weight / √(var + 1e-5),    bias = bias - mean · scale             (1)
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from dpjax.core.errors import UserError
from dpjax.nets.resnet import BLOCKS

EPSILON = 1e-5  # added to the variance; torch's default, which torchvision keeps
CLASSIFIER = ("fc.weight", "fc.bias")  # the last layer, which an encoder does not have


def read(path: str | Path) -> dict[str, np.ndarray]:
    """{name: array} of a .safetensors or .npz file; raises UserError for any other file."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected weights, .safetensors or .npz.")
    try:
        # .safetensors cannot hold code. An .npz can, unless allow_pickle is False.
        if path.suffix == ".safetensors":
            return load_file(path)
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # both readers raise many types on damaged files
        raise UserError(
            f"{path}: can't be read as weights, .safetensors or .npz "
            f"({type(error).__name__}: {str(error)[:120]})."
        ) from error


def resnet(path: str | Path, depth: int) -> dict:
    """The params of `ResNet(depth, 64, "frozen")`, from a file with torchvision's state dict.

    depth: 18 or 34. Raises UserError for arrays that are missing or left over, by name.
    """
    arrays = read(path)
    params, names = _params(arrays, depth, str(path))
    # Any other array that was not read means that the file is of another network.
    ignored = {*names, *CLASSIFIER}
    unused = [
        name for name in arrays if name not in ignored and not name.endswith("num_batches_tracked")
    ]
    if unused:
        raise UserError(
            f"{path}: {len(unused)} arrays are not of a ResNet-{depth}, the first is {unused[0]!r}."
        )
    return params


def _params(arrays: Mapping[str, np.ndarray], depth: int, source: str) -> tuple[dict, set[str]]:
    """(the params, the names of the arrays that they were read from)."""
    names = set()

    # Each of these looks up one layer by its torchvision name.
    def array(name):
        if name not in arrays:
            raise UserError(f"{source}: no array {name!r}: not the weights of a ResNet-{depth}.")
        names.add(name)
        return np.asarray(arrays[name], np.float32)

    def conv(name):
        return {"kernel": array(f"{name}.weight").transpose(2, 3, 1, 0)}  # OIHW -> HWIO

    def norm(name):
        parts = ("weight", "bias", "running_mean", "running_var")
        weight, bias, mean, var = (array(f"{name}.{part}") for part in parts)
        scale = weight / np.sqrt(var + EPSILON)
        return {"frozen_scale": scale, "frozen_bias": bias - mean * scale}  # (1)

    # The stem, then every block of the four stages.
    params = {"conv": conv("conv1"), "norm": norm("bn1")}
    for stage, blocks in enumerate(BLOCKS[depth]):
        for i in range(blocks):
            name = f"layer{stage + 1}.{i}"  # torchvision counts stages from 1
            block = {
                "conv0": conv(f"{name}.conv1"),
                "norm0": norm(f"{name}.bn1"),
                "conv1": conv(f"{name}.conv2"),
                "norm1": norm(f"{name}.bn2"),
            }
            # The first block of a later stage halves the image, and so must its shortcut.
            if stage and not i:
                block["shortcut"] = conv(f"{name}.downsample.0")
                block["shortcut_norm"] = norm(f"{name}.downsample.1")
            params[f"stage{stage}_{i}"] = block
    return params, names
