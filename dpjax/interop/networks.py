"""The networks of other libraries as pieces of ours: U-Nets, transformers, ResNets.

Every table is read off the leaves that our network has: a shortcut is in it where ours has
one. `order` says where a feature of ours is among theirs, which have the cameras elsewhere.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import numpy as np

from dpjax.interop.weight_map import Path, Piece, Shapes, linear, norm

EPSILON = 1e-5  # of torch's BatchNorm
CONV1D = (2, 1, 0)  # [out, in, k] -> [k, in, out]
TRANSPOSED = (2, 0, 1)  # [in, out, k] -> [k, in, out]
CONV2D = (2, 3, 1, 0)  # [out, in, h, w] -> [h, w, in, out]
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Names(NamedTuple):
    """What a library calls the parts of the same U-Net.

    block: of a residual block the i-th half, "blocks.0" or "conv1".
    resize: the convolution that halves or doubles the steps.
    """

    block: tuple[str, str]
    resize: str


ORIGINAL = Names(("blocks.0", "blocks.1"), "2.conv")
LEROBOT = Names(("conv1", "conv2"), "2")


def conv(path: Path, name: str, axes=CONV1D, bias: bool = True) -> tuple[Piece, ...]:
    kernel = Piece((*path, "kernel"), f"{name}.weight", axes)
    return (kernel, Piece((*path, "bias"), f"{name}.bias")) if bias else (kernel,)


def conv_block(path: Path, name: str) -> tuple[Piece, ...]:
    """A convolution and its GroupNorm."""
    return (*conv((*path, "conv"), f"{name}.block.0"), *norm(path, f"{name}.block.1"))


def blocks(levels: int) -> list[str]:
    """Their residual blocks in the order in which x meets them, which is ours."""
    return [
        *(f"down_modules.{i}.{j}" for i in range(levels) for j in range(2)),
        *(f"mid_modules.{j}" for j in range(2)),
        *(f"up_modules.{i}.{j}" for i in range(levels - 1) for j in range(2)),
    ]


def unet(
    ours: Shapes, names: Names = ORIGINAL, prefix: str = "", order: np.ndarray | None = None
) -> tuple[Piece, ...]:
    """Ours: the leaves of `nets.unet1d.UNet1D`. order: of the conditioning's numbers, [To F]."""
    levels = 1 + sum(path[0].startswith("downs_") for path in ours) // 2
    made = [(f"blocks_{i}", name) for i, name in enumerate(blocks(levels))]
    if ("local_block", "block0", "bias") in ours:
        made.append(("local_block", "local_cond_encoder.0"))
    time, end = ours["film", "time"][0], 0
    scale = ours["film", "bias"][0] // sum(ours[own, "block0", "bias"][0] for own, _ in made)
    found = []
    for own, name in made:
        name = prefix + name
        for i, part in enumerate(names.block):
            found += conv_block((own, f"block{i}"), f"{name}.{part}")
        if (own, "shortcut", "kernel") in ours:
            found += conv((own, "shortcut"), f"{name}.residual_conv")
        start, end = end, end + scale * ours[own, "block0", "bias"][0]
        found += film(f"{name}.cond_encoder.1", slice(start, end), time, ours, order)
    for i in range(levels - 1):
        found += conv((f"downs_{i}",), f"{prefix}down_modules.{i}.{names.resize}")
        found += conv((f"ups_{i}",), f"{prefix}up_modules.{i}.{names.resize}", TRANSPOSED)
    found += linear(("time_in",), f"{prefix}diffusion_step_encoder.1")
    found += linear(("time_out",), f"{prefix}diffusion_step_encoder.3")
    found += conv_block(("last_block",), f"{prefix}final_conv.0")
    return (*found, *conv(("last",), f"{prefix}final_conv.1"))


def film(name: str, columns: slice, time: int, ours: Shapes, order) -> list[Piece]:
    """A block's linear layer of [time; observation]: columns of ours in three leaves."""
    of = slice(time, time + ours["film", "obs"][0]) if order is None else time + order
    here, weight = (slice(None), columns), f"{name}.weight"
    found = [
        Piece(("film", "time"), weight, (1, 0), here, (slice(None), slice(0, time))),
        Piece(("film", "bias"), f"{name}.bias", to=(columns,)),
    ]
    if ours["film", "obs"][0]:
        found.append(Piece(("film", "obs"), weight, (1, 0), here, (slice(None), of)))
    return found


def transformer(
    ours: Shapes, prefix: str = "", order: np.ndarray | None = None
) -> tuple[Piece, ...]:
    """Ours: the leaves of `nets.transformer.Transformer`. order: of an observed step's numbers."""
    count = lambda name: len({path[0] for path in ours if path[0].startswith(name)})
    width = ours["position",][1]
    decoder = ("memory_position",) in ours
    found = [*linear(("action_in",), f"{prefix}input_emb")]
    found += linear(("action_out",), f"{prefix}head")
    found += norm(("norm_out",), f"{prefix}ln_f")
    found.append(Piece(("position",), f"{prefix}pos_emb", of=(0,)))
    for i in range(count("blocks_")):
        stack = "decoder" if decoder else "encoder"
        found += attention(f"blocks_{i}", f"{prefix}{stack}.layers.{i}", width, decoder)
    if ("obs_in", "kernel") in ours:
        of = {} if order is None else {"of": (slice(None), order)}
        found += linear(("obs_in",), f"{prefix}cond_obs_emb", **of)
    if not decoder:
        return tuple(found)
    found.append(Piece(("memory_position",), f"{prefix}cond_pos_emb", of=(0,)))
    for i in range(count("memory_blocks_")):
        found += attention(f"memory_blocks_{i}", f"{prefix}encoder.layers.{i}", width, False)
    if ("memory_up", "kernel") in ours:
        found += linear(("memory_up",), f"{prefix}encoder.0")
        found += linear(("memory_down",), f"{prefix}encoder.2")
    return tuple(found)


def attention(own: str, name: str, width: int, cross: bool) -> list[Piece]:
    """A transformer's block; torch keeps q, k and v as the rows of one matrix."""

    def packed(path, part, rows):
        at = (rows,)
        weight = Piece((*path, "kernel"), f"{name}.{part}.in_proj_weight", (1, 0), of=at)
        return weight, Piece((*path, "bias"), f"{name}.{part}.in_proj_bias", of=at)

    found = [*packed((own, "qkv"), "self_attn", slice(0, 3 * width))]
    found += linear((own, "out_self"), f"{name}.self_attn.out_proj")
    found += linear((own, "up"), f"{name}.linear1")
    found += linear((own, "down"), f"{name}.linear2")
    found += norm((own, "norm_self"), f"{name}.norm1")
    found += norm((own, "norm_mlp"), f"{name}.norm{3 if cross else 2}")
    if cross:
        i = own.split("_")[-1]
        found += packed((own, "q"), "multihead_attn", slice(0, width))
        found += packed((f"memory_kv_{i}",), "multihead_attn", slice(width, 3 * width))
        found += linear((own, "out_cross"), f"{name}.multihead_attn.out_proj")
        found += norm((own, "norm_cross"), f"{name}.norm2")
    return found


def original(name: str, order: np.ndarray | None) -> Callable[[Shapes], tuple[Piece, ...]]:
    """Our leaves -> the pieces of the original's denoiser; name: of `build.DENOISERS`."""
    table = {"unet1d": unet, "transformer": transformer}[name]
    return functools.partial(table, prefix="model.", order=order)


class Stages(NamedTuple):
    """What a library calls the parts of a ResNet: its first convolution, norm, and stages."""

    conv: str
    norm: str
    stages: tuple[str, str, str, str]


NUMBERED = Stages("0", "1", ("4", "5", "6", "7"))  # torch's Sequential of the children
TORCHVISION = Stages("conv1", "bn1", ("layer1", "layer2", "layer3", "layer4"))


def resnet(ours: Shapes, path: Path, name: str, names: Stages) -> tuple[Piece, ...]:
    """The leaves under `path`: a `nets.resnet.ResNet` with GroupNorms, or frozen ones."""

    def normed(part, name):
        kind = "frozen_" if (*path, *part, "frozen_scale") in ours else ""
        return norm((*path, *part), name, f"{kind}scale", f"{kind}bias")

    def convolved(part, name):
        return conv((*path, *part), name, CONV2D, bias=False)

    found = [*convolved(("conv",), f"{name}.{names.conv}")]
    found += normed(("norm",), f"{name}.{names.norm}")
    own = {leaf[len(path)] for leaf in ours if leaf[: len(path)] == path}
    for block in sorted(own):
        if not block.startswith("stage"):
            continue
        stage, i = block.removeprefix("stage").split("_")
        there = f"{name}.{names.stages[int(stage)]}.{i}"
        for j in range(2):
            found += convolved((block, f"conv{j}"), f"{there}.conv{j + 1}")
            found += normed((block, f"norm{j}"), f"{there}.bn{j + 1}")
        if (*path, block, "shortcut", "kernel") in ours:
            found += convolved((block, "shortcut"), f"{there}.downsample.0")
            found += normed((block, "shortcut_norm"), f"{there}.downsample.1")
    return tuple(found)


def points(path: Path, pool: str, out: str) -> tuple[Piece, ...]:
    """The spatial softmax's maps and the linear layer after it."""
    return (*conv((*path, "maps"), pool, CONV2D), *linear((*path, "out"), out))


def fold_batch_norms(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """BatchNorms with their statistics as a scale and a bias a channel, under the same names."""
    found = {name: x for name, x in tensors.items() if name.split(".")[-1] not in STATISTICS}
    for name in tensors:
        norm, _, part = name.rpartition(".")
        others = [f"{norm}.{other}" for other in ("running_var", "weight", "bias")]
        if part != "running_mean" or any(other not in tensors for other in others):
            continue
        var, weight, bias = (tensors[other] for other in others)
        scale = weight / np.sqrt(var + np.float32(EPSILON))
        found[f"{norm}.weight"], found[f"{norm}.bias"] = scale, bias - tensors[name] * scale
    return found
