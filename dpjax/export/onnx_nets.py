"""The denoising networks as ONNX nodes.

A network is a function `(graph, module, params, cond) -> denoise`, where `denoise(x, per_level)`
adds the nodes of one evaluation. The sampling loop is unrolled, so `denoise` is called once per
evaluation; the weights are constants that all evaluations share.

    module      the flax module, for its settings
    params      its params {path: array}, which carry the names that flax gives them
    cond        the name of the features [B, T, F]; None if there are none (inpainting)
    x           the name of x [B, Tp, D]
    per_level   `Context.per_level` of the evaluation's level, which depends on no input of the
                graph: dpjax itself computes it before, and it is a constant here
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dpjax.export.graph import Graph
from dpjax.nets import unet1d as unet1d_lib
from dpjax.ops.group_norm import EPSILON

Denoise = Callable[[str, Any], str]


def unet1d(
    graph: Graph, module: Any, params: Mapping[str, np.ndarray], cond: str | None
) -> Denoise:
    """`nets.unet1d.UNet1D`, channels first as ONNX has them."""
    add_unet_weights(graph, params)
    # The blocks in the order of the FiLM layer's outputs; the one of `local` is the last.
    levels = len(module.widths)
    blocks = [f"blocks_{i}" for i in range(4 * levels)]
    blocks += ["local_block"] if module.local else []
    widths = [len(params[f"{block}/block0/scale"]) for block in blocks]
    # Of each block's modulation the scale, then the bias; or the bias alone.
    sizes = [width for width in widths for _ in range(2 if module.film_scale else 1)]
    # The observation's part of the modulations is computed once, before the loop. With `local`
    # the features enter a block of their own, step by step.
    shared = None if module.local or cond is None else unet_film(graph, cond)
    local = graph.node("Transpose", cond, perm=(0, 2, 1)) if module.local and cond else None

    def denoise(x: str, per_level: np.ndarray) -> str:
        # All modulations at this level [B, M, 1], cut into those of the blocks.
        film = graph.constant(per_level[None, :, None])
        film = graph.node("Add", film, shared) if shared else film
        parts = graph.split(film, sizes, axis=1)
        films = np.reshape(parts, (len(blocks), -1)).tolist()
        block = lambda i, x: res_block(graph, params, module.groups, blocks[i], x, films[i])

        # Down: two blocks per level, then half as many steps.
        x = graph.node("Transpose", x, perm=(0, 2, 1))  # [B, D, Tp]
        skips = []
        for level in range(levels):
            x = block(2 * level, x)
            if local and level == 0:
                x = graph.node("Add", x, block(-1, local))
            x = block(2 * level + 1, x)
            skips.append(x)
            if level < levels - 1:
                x = conv(graph, params, f"downs_{level}", x, stride=2)
        # Bottom.
        x = block(2 * levels, x)
        x = block(2 * levels + 1, x)
        # Up: the level's skip beside x, two blocks, then twice as many steps.
        for level in range(levels - 1):
            x = graph.node("Concat", x, skips.pop(), axis=1)
            x = block(2 * (levels + 1 + level), x)
            x = block(2 * (levels + 1 + level) + 1, x)
            names = (f"ups_{level}/kernel", f"ups_{level}/bias")
            x = graph.node("ConvTranspose", x, *names, strides=[2], pads=[1, 1])
        x = conv_block(graph, params, unet1d_lib.LAST_GROUPS, "last_block", x)
        return graph.node("Transpose", conv(graph, params, "last", x), perm=(0, 2, 1))

    return denoise


def add_unet_weights(graph: Graph, params: Mapping[str, np.ndarray]) -> None:
    """Adds the U-Net's params as constants of the same names, in ONNX's layouts."""
    for name, array in params.items():
        # What the level alone reads is part of `per_level`.
        if name.startswith(("time_", "span_")) or name in ("film/time", "film/bias"):
            continue
        # Kernels [k, C, D]: a convolution is [D, C, k] in ONNX, a transposed one [C, D, k].
        if array.ndim == 3:
            array = array.transpose((1, 2, 0) if name.startswith("ups_") else (2, 1, 0))
        # Inpainting has no features, and no product with them.
        if array.size:
            graph.constant(array, name)


def unet_film(graph: Graph, cond: str) -> str:
    """The observation's part of all modulations: cond [B, To, F] -> [B, M, 1]."""
    flat = graph.node("Mish", graph.node("Flatten", cond, axis=1))  # [B, To F]
    film = graph.node("MatMul", flat, "film/obs")
    return graph.node("Unsqueeze", film, np.array([2]))


def res_block(
    graph: Graph, params: Mapping, groups: int, name: str, x: str, film: list[str]
) -> str:
    """`unet1d.ResBlock`: x [B, C, L], film (scale and bias, or bias) [B, D, 1] -> [B, D, L]."""
    h = conv_block(graph, params, groups, f"{name}/block0", x)
    *scale, bias = film
    for factor in scale:
        h = graph.node("Mul", h, factor)
    h = graph.node("Add", h, bias)
    h = conv_block(graph, params, groups, f"{name}/block1", h)
    # The shortcut has weights only where the number of channels changes.
    if f"{name}/shortcut/kernel" in params:
        x = conv(graph, params, f"{name}/shortcut", x)
    return graph.node("Add", h, x)


def conv_block(graph: Graph, params: Mapping, groups: int, name: str, x: str) -> str:
    """`unet1d.ConvBlock`: convolution, GroupNorm, Mish."""
    x = conv(graph, params, f"{name}/conv", x)
    norm = (f"{name}/scale", f"{name}/bias")
    x = graph.node("GroupNormalization", x, *norm, num_groups=groups, epsilon=EPSILON)
    return graph.node("Mish", x)


def conv(graph: Graph, params: Mapping, name: str, x: str, stride: int = 1) -> str:
    """`layers.Conv1D`: it keeps the length at stride 1 and halves it at 2."""
    padding = params[f"{name}/kernel"].shape[0] // 2
    weights = (f"{name}/kernel", f"{name}/bias")
    return graph.node("Conv", x, *weights, strides=[stride], pads=[padding, padding])
