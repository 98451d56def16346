"""Weight tables of other libraries' networks: U-Nets, transformers and ResNets.

Each function receives the shapes of our network's leaves and returns its table. Optional
parts, such as a shortcut, are in the table where our network has them. `order` is the index
of each of our features in the other library's vector of features.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import numpy as np

from dpjax.core.errors import choose
from dpjax.interop.weight_map import Path, Shapes, Table, WeightEntry, linear, norm

EPSILON = 1e-5  # added to the variance by torch's BatchNorm
# The order in which our kernels have the axes of torch's.
CONV1D = (2, 1, 0)  # [out, in, k] -> [k, in, out]
TRANSPOSED_CONV1D = (2, 0, 1)  # [in, out, k] -> [k, in, out]
CONV2D = (2, 3, 1, 0)  # [out, in, h, w] -> [h, w, in, out]
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of a BatchNorm


class UNetNames(NamedTuple):
    """What a library calls the parts of the U-Net.

    halves: the two convolutions of a residual block.
    resize: the convolution that halves or doubles the number of steps.
    """

    halves: tuple[str, str]
    resize: str


CHI2023 = UNetNames(("blocks.0", "blocks.1"), "2.conv")
LEROBOT = UNetNames(("conv1", "conv2"), "2")


def conv(path: Path, name: str, axes: tuple[int, ...] = CONV1D, bias: bool = True) -> Table:
    """Entries of a convolution."""
    kernel = WeightEntry((*path, "kernel"), f"{name}.weight", axes)
    return (kernel, WeightEntry((*path, "bias"), f"{name}.bias")) if bias else (kernel,)


def conv_block(path: Path, name: str) -> Table:
    """Entries of a convolution and the GroupNorm after it."""
    return (*conv((*path, "conv"), f"{name}.block.0"), *norm(path, f"{name}.block.1"))


def residual_blocks(levels: int) -> list[str]:
    """torch's names of the residual blocks, in the order in which x passes through them.

    Our blocks are numbered in the same order.
    """
    return [
        *(f"down_modules.{i}.{j}" for i in range(levels) for j in range(2)),
        *(f"mid_modules.{j}" for j in range(2)),
        *(f"up_modules.{i}.{j}" for i in range(levels - 1) for j in range(2)),
    ]


def unet(
    shapes: Shapes, names: UNetNames = CHI2023, prefix: str = "", order: np.ndarray | None = None
) -> Table:
    """The table of `nets.unet1d.UNet1D`.

    order: of the numbers that the network is conditioned on, [To F].
    """
    # Every halving of the steps has two leaves, kernel and bias.
    levels = 1 + sum(path[0].startswith("downs_") for path in shapes) // 2
    blocks = [(f"blocks_{i}", name) for i, name in enumerate(residual_blocks(levels))]
    if ("local_block", "block0", "bias") in shapes:
        blocks.append(("local_block", "local_cond_encoder.0"))

    # Our FiLM layer is one matrix for all blocks; torch has one matrix per block. A block's
    # columns are as many as its channels, or twice as many with a FiLM scale beside the bias.
    channels = {block: shapes[block, "block0", "bias"][0] for block, _ in blocks}
    columns_per_channel = shapes["film", "bias"][0] // sum(channels.values())
    start = 0
    table: list[WeightEntry] = []
    for block, name in blocks:
        name = prefix + name
        for i, half in enumerate(names.halves):
            table += conv_block((block, f"block{i}"), f"{name}.{half}")
        if (block, "shortcut", "kernel") in shapes:
            table += conv((block, "shortcut"), f"{name}.residual_conv")
        end = start + columns_per_channel * channels[block]
        table += film(f"{name}.cond_encoder.1", slice(start, end), shapes, order)
        start = end

    # The convolutions between the levels, the time embedding, and the output.
    for i in range(levels - 1):
        table += conv((f"downs_{i}",), f"{prefix}down_modules.{i}.{names.resize}")
        table += conv((f"ups_{i}",), f"{prefix}up_modules.{i}.{names.resize}", TRANSPOSED_CONV1D)
    table += linear(("time_in",), f"{prefix}diffusion_step_encoder.1")
    table += linear(("time_out",), f"{prefix}diffusion_step_encoder.3")
    table += conv_block(("last_block",), f"{prefix}final_conv.0")
    table += conv(("last",), f"{prefix}final_conv.1")
    return tuple(table)


def film(name: str, columns: slice, shapes: Shapes, order: np.ndarray | None) -> Table:
    """Entries of one block's FiLM layer, a linear layer of [time embedding; observation].

    columns: of the block in our three leaves: the weights of the time, of the observation,
    and the bias.
    """
    time_size = shapes["film", "time"][0]
    obs_size = shapes["film", "obs"][0]
    ours = (slice(None), columns)
    time = (slice(None), slice(0, time_size))
    entries = [
        WeightEntry(("film", "time"), f"{name}.weight", (1, 0), ours, time),
        WeightEntry(("film", "bias"), f"{name}.bias", index=(columns,)),
    ]
    if obs_size:  # torch's matrix has the observation's columns after those of the time
        rows = slice(time_size, time_size + obs_size) if order is None else time_size + order
        obs = (slice(None), rows)
        entries.append(WeightEntry(("film", "obs"), f"{name}.weight", (1, 0), ours, obs))
    return tuple(entries)


def transformer(shapes: Shapes, prefix: str = "", order: np.ndarray | None = None) -> Table:
    """The table of `nets.transformer.Transformer`.

    order: of one observed step's numbers, [F].
    """
    count = lambda name: len({path[0] for path in shapes if path[0].startswith(name)})
    width = shapes["position",][1]
    has_memory = ("memory_position",) in shapes  # otherwise it is an encoder without a decoder

    # The action tokens, their position embedding and their blocks.
    table = [*linear(("action_in",), f"{prefix}input_emb")]
    table += linear(("action_out",), f"{prefix}head")
    table += norm(("norm_out",), f"{prefix}ln_f")
    table.append(WeightEntry(("position",), f"{prefix}pos_emb", tensor_index=(0,)))
    stack = "decoder" if has_memory else "encoder"
    for i in range(count("blocks_")):
        table += attention(f"blocks_{i}", f"{prefix}{stack}.layers.{i}", width, has_memory)
    if ("obs_in", "kernel") in shapes:
        indices = {} if order is None else {"tensor_index": (slice(None), order)}
        table += linear(("obs_in",), f"{prefix}cond_obs_emb", **indices)
    if not has_memory:
        return tuple(table)

    # The memory: tokens of the time and the observations, through an encoder or an MLP.
    table.append(WeightEntry(("memory_position",), f"{prefix}cond_pos_emb", tensor_index=(0,)))
    for i in range(count("memory_blocks_")):
        table += attention(f"memory_blocks_{i}", f"{prefix}encoder.layers.{i}", width, False)
    if ("memory_up", "kernel") in shapes:
        table += linear(("memory_up",), f"{prefix}encoder.0")
        table += linear(("memory_down",), f"{prefix}encoder.2")
    return tuple(table)


def attention(block: str, name: str, width: int, cross: bool) -> Table:
    """Entries of one transformer block; cross: it attends to a memory too."""

    def projection(path, part, rows):
        # torch keeps the projections to q, k and v as the rows of one matrix.
        return (
            WeightEntry(
                (*path, "kernel"), f"{name}.{part}.in_proj_weight", (1, 0), tensor_index=(rows,)
            ),
            WeightEntry((*path, "bias"), f"{name}.{part}.in_proj_bias", tensor_index=(rows,)),
        )

    table = [*projection((block, "qkv"), "self_attn", slice(0, 3 * width))]
    table += linear((block, "out_self"), f"{name}.self_attn.out_proj")
    table += linear((block, "up"), f"{name}.linear1")
    table += linear((block, "down"), f"{name}.linear2")
    table += norm((block, "norm_self"), f"{name}.norm1")
    table += norm((block, "norm_mlp"), f"{name}.norm{3 if cross else 2}")
    if cross:
        memory_kv = f"memory_kv_{block.split('_')[-1]}"
        table += projection((block, "q"), "multihead_attn", slice(0, width))
        table += projection((memory_kv,), "multihead_attn", slice(width, 3 * width))
        table += linear((block, "out_cross"), f"{name}.multihead_attn.out_proj")
        table += norm((block, "norm_cross"), f"{name}.norm2")
    return tuple(table)


def chi2023_denoiser(network: str, order: np.ndarray | None) -> Callable[[Shapes], Table]:
    """Shapes of our leaves -> table of the denoiser of Chi et al.'s code."""
    tables = {"unet1d": unet, "transformer": transformer}
    table = choose(tables, network, "network")
    return functools.partial(table, prefix="model.", order=order)


class ResNetNames(NamedTuple):
    """What a library calls a ResNet's first convolution, its norm, and the four stages."""

    conv: str
    norm: str
    stages: tuple[str, str, str, str]


NUMBERED = ResNetNames("0", "1", ("4", "5", "6", "7"))  # a torch Sequential of the same layers
TORCHVISION = ResNetNames("conv1", "bn1", ("layer1", "layer2", "layer3", "layer4"))


def resnet(shapes: Shapes, path: Path, name: str, names: ResNetNames) -> Table:
    """The table of a `nets.resnet.ResNet` at `path`, with GroupNorms or frozen norms."""

    def norm_entries(part, name):
        frozen = "frozen_" if (*path, *part, "frozen_scale") in shapes else ""
        return norm((*path, *part), name, f"{frozen}scale", f"{frozen}bias")

    def conv_entries(part, name):
        return conv((*path, *part), name, CONV2D, bias=False)

    table = [*conv_entries(("conv",), f"{name}.{names.conv}")]
    table += norm_entries(("norm",), f"{name}.{names.norm}")
    children = {leaf[len(path)] for leaf in shapes if leaf[: len(path)] == path}
    for block in sorted(child for child in children if child.startswith("stage")):
        stage, i = block.removeprefix("stage").split("_")
        block_name = f"{name}.{names.stages[int(stage)]}.{i}"
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

    scale = weight / √(var + 1e-5), bias = bias - mean · scale, under the names of weight and
    bias; the statistics are left out.
    """
    folded = {name: x for name, x in tensors.items() if name.split(".")[-1] not in STATISTICS}
    for name in tensors:
        layer, _, part = name.rpartition(".")
        others = [f"{layer}.{other}" for other in ("running_var", "weight", "bias")]
        # Each BatchNorm is met once, at its mean; other norms have no statistics.
        if part != "running_mean" or any(other not in tensors for other in others):
            continue
        var, weight, bias = (tensors[other] for other in others)
        scale = weight / np.sqrt(var + np.float32(EPSILON))
        folded[f"{layer}.weight"] = scale
        folded[f"{layer}.bias"] = bias - tensors[name] * scale
    return folded
