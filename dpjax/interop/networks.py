"""Weight tables of other libraries' denoisers: U-Nets and transformers.

Each function receives the shapes of our network's leaves and returns the network's table. An
optional layer, such as a shortcut, is in the table if our network has it. `order` holds, for
each of our features, its index in the other library's vector; None if the order is the same.
"""

from collections.abc import Callable
import functools
from typing import NamedTuple

import numpy as np

from dpjax.core.errors import choose
from dpjax.interop.weight_map import Path, Shapes, Table, WeightEntry, linear, norm

# The order in which our kernels have the axes of torch's.
CONV1D = (2, 1, 0)  # [out, in, k] -> [k, in, out]
TRANSPOSED_CONV1D = (2, 0, 1)  # [in, out, k] -> [k, in, out]


class UNetNames(NamedTuple):
    """Names of the U-Net's modules, of which LeRobot's port renamed a few.

    halves: the two convolutions of a residual block.
    resize: the convolution that halves or doubles the number of steps.
    """

    halves: tuple[str, str]
    resize: str


CHI2023 = UNetNames(("blocks.0", "blocks.1"), "2.conv")
LEROBOT = UNetNames(("conv1", "conv2"), "2")


def conv(path: Path, name: str, axes: tuple[int, ...] = CONV1D, bias: bool = True) -> Table:
    """Entries of a convolution."""
    # torch calls the weights of every layer "weight"; flax calls them "kernel".
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

    order: indices of the features of all observed steps, [To F].
    """
    # There is one convolution between two levels, and it has two leaves, kernel and bias.
    levels = 1 + sum(path[0].startswith("downs_") for path in shapes) // 2
    blocks = [(f"blocks_{i}", name) for i, name in enumerate(residual_blocks(levels))]
    # The block of local conditioning, which only some policies have.
    if ("local_block", "block0", "bias") in shapes:
        blocks.append(("local_block", "local_cond_encoder.0"))

    # Our FiLM layer is one matrix for all blocks; torch has one matrix per block. A block has
    # one column per channel, or two if FiLM has a scale beside the bias.
    channels = {block: shapes[block, "block0", "bias"][0] for block, _ in blocks}
    columns_per_channel = shapes["film", "bias"][0] // sum(channels.values())
    start = 0
    table: list[WeightEntry] = []
    for block, name in blocks:
        name = prefix + name
        # The two convolutions, and a third one where the number of channels changes.
        for i, half in enumerate(names.halves):
            table += conv_block((block, f"block{i}"), f"{name}.{half}")
        if (block, "shortcut", "kernel") in shapes:
            table += conv((block, "shortcut"), f"{name}.residual_conv")
        # In our FiLM leaves, the columns of a block follow those of the block before it.
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

    columns: the block's columns in our three leaves, which are the weights of the time, the
        weights of the observation, and the bias.
    """
    time_size = shapes["film", "time"][0]
    obs_size = shapes["film", "obs"][0]
    ours = (slice(None), columns)
    time = (slice(None), slice(0, time_size))
    # torch's one layer is three leaves here, because the part that depends on the time is
    # computed once per noise level, and the part that depends on the observation once per chunk.
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

    order: indices of the features of one observed step, [F].
    """
    count = lambda name: len({path[0] for path in shapes if path[0].startswith(name)})
    width = shapes["position",][1]
    has_memory = ("memory_position",) in shapes  # otherwise it is an encoder without a decoder

    # The action tokens, their position embedding and their blocks.
    # torch's position embeddings are [1, steps, width], hence the index 0 on the first axis.
    table = [*linear(("action_in",), f"{prefix}input_emb")]
    table += linear(("action_out",), f"{prefix}head")
    table += norm(("norm_out",), f"{prefix}ln_f")
    table.append(WeightEntry(("position",), f"{prefix}pos_emb", tensor_index=(0,)))
    stack = "decoder" if has_memory else "encoder"  # torch's module with the action blocks
    for i in range(count("blocks_")):
        table += attention(f"blocks_{i}", f"{prefix}{stack}.layers.{i}", width, has_memory)
    # The input layer of the observations; its columns are reordered from the library's order.
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
    """Entries of one transformer block.

    cross: whether the block also attends to a memory.
    """

    def projection(path, part, rows):
        # torch keeps the projections to q, k and v as the rows of one matrix.
        return (
            WeightEntry(
                (*path, "kernel"), f"{name}.{part}.in_proj_weight", (1, 0), tensor_index=(rows,)
            ),
            WeightEntry((*path, "bias"), f"{name}.{part}.in_proj_bias", tensor_index=(rows,)),
        )

    # Self-attention and the MLP, which every block has.
    table = [*projection((block, "qkv"), "self_attn", slice(0, 3 * width))]
    table += linear((block, "out_self"), f"{name}.self_attn.out_proj")
    table += linear((block, "up"), f"{name}.linear1")
    table += linear((block, "down"), f"{name}.linear2")
    table += norm((block, "norm_self"), f"{name}.norm1")
    table += norm((block, "norm_mlp"), f"{name}.norm{3 if cross else 2}")
    # Cross-attention: torch packs q, k and v into one matrix here too, but q comes from the action
    # tokens, and k and v from the memory. We keep k and v apart: sampling computes them once.
    if cross:
        memory_kv = f"memory_kv_{block.split('_')[-1]}"
        table += projection((block, "q"), "multihead_attn", slice(0, width))
        table += projection((memory_kv,), "multihead_attn", slice(width, 3 * width))
        table += linear((block, "out_cross"), f"{name}.multihead_attn.out_proj")
        table += norm((block, "norm_cross"), f"{name}.norm2")
    return tuple(table)


def chi2023_denoiser(network: str, order: np.ndarray | None) -> Callable[[Shapes], Table]:
    """The function from our leaves' shapes to the weight table of Chi et al.'s denoiser."""
    tables = {"unet1d": unet, "transformer": transformer}
    table = choose(tables, network, "network")
    return functools.partial(table, prefix="model.", order=order)
