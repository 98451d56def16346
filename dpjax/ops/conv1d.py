"""1-D convolutions over a short horizon, channels last, in torch's geometry.

XLA's CPU convolution leaves its fast path where the kernel is longer than the input (horizon 16
and three levels: length 4, kernel 5), and is then slower by a factor of 100. There a convolution
over a few steps is better written as matrix products. A CPU has three forms of them:

- `conv_neighbours`: the k inputs of every output side by side, times the kernel as one matrix;
- `conv_taps`: one product per tap of the kernel, for large kernels and batches;
- `winograd.conv_tiles`: fewer products, for many steps.

A GPU takes `conv_neighbours` everywhere, a TPU keeps XLA's convolution. All are the same function
of the same parameters. A kernel may be Transposed (`transposed.py`), for sampling on a CPU: then
matrix products compute it on every platform.
"""

from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from dpjax.ops import transposed
from dpjax.ops.kernels import by_platform, is_fast
from dpjax.ops.transposed import Kernel, Transposed, dot, is_at_least, matmul_2d, taps
from dpjax.ops.winograd import TILE, conv_tiles, tiles_pay

Array = jax.Array

# From these numbers per tap and examples per batch on one product per tap is the fastest on a
# CPU: no input is copied five times, and none is multiplied with padding, which at length 4 and
# kernel 5 is 6 of 20 products. Measured, the gradient of four convolutions at batch 64: 104
# against 131 ms at 1024 channels and length 4, 61 against 68 at 512 and 8, 39 against 35 at 256
# and 16. Each tap is copied out of the kernel, which takes longer than it gains at batch 1.
LARGE_KERNEL = 2**18
LARGE_BATCH = 16
# Kernel sizes that `conv_tiles` computes, and tiles per batch from which on it does: it adds up
# kernels, which takes as long for few tiles as for many. With transposed kernels, while sampling,
# XLA adds them up once before the loop, so half as many are enough: 1.26 times as fast with 16
# examples, but 0.84 times where there is one evaluation and no loop.
TILED_SIZES = (3, 5)
MIN_TILES = 32
MIN_TILES_TRANSPOSED = 16


def conv(
    x: Array, kernel: Kernel, *, stride: int = 1, padding: int = 0, kernels: str = "auto"
) -> Array:
    """Cross-correlation along time, as torch's Conv1d.

    x [B, L, C], kernel [k, C, D] -> [B, (L + 2 padding - k) // stride + 1, D].
    kernels: "auto" or "xla", see `ops/kernels.py`.
    """
    # Transposed params decide by themselves, whatever `kernels` says.
    if isinstance(kernel, Transposed):
        is_one = kernel.shape[0] == 1
        return dot(x, kernel) if is_one else conv_cpu(x, kernel, stride, padding)
    # A kernel of 1 is a dense layer on every platform.
    if kernel.shape[0] == 1 and is_fast(kernels):
        return dot(x, kernel)
    return by_platform(
        kernels,
        x,
        kernel,
        xla=lambda x, kernel: conv_xla(x, kernel, stride, padding),
        cpu=lambda x, kernel: conv_cpu(x, kernel, stride, padding),
        cuda=lambda x, kernel: conv_neighbours(x, kernel, stride, padding),
    )


def conv_xla(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """`conv` by XLA's convolution."""
    return lax.conv_general_dilated(
        x, kernel, (stride,), ((padding, padding),), dimension_numbers=("NWC", "WIO", "NWC")
    )


def conv_cpu(x: Array, kernel: Kernel, stride: int, padding: int) -> Array:
    """`conv` in the form that is the fastest on a CPU."""
    if is_tiled(x, kernel, stride, padding):
        return conv_tiles(x, kernel)
    _, inputs, outputs = kernel.shape
    # From which size on one product per tap is faster depends on the kernel's layout.
    if isinstance(kernel, Transposed):
        is_large = is_at_least(x.shape[0], transposed.LARGE_BATCH)
    else:
        is_large = inputs * outputs >= LARGE_KERNEL and is_at_least(x.shape[0], LARGE_BATCH)
    form = conv_taps if is_large else conv_neighbours
    return form(x, kernel, stride, padding)


def is_tiled(x: Array, kernel: Kernel, stride: int, padding: int) -> bool:
    """Whether `conv_tiles` computes this convolution, is the fastest, and precise enough."""
    size = kernel.shape[0]
    tiles, rest = divmod(x.shape[1], TILE)
    # Tiles have no stride, and as many outputs as inputs.
    keeps_length = stride == 1 and 2 * padding + 1 == size
    if not keeps_length or size not in TILED_SIZES or not tiles or rest:
        return False
    least = MIN_TILES_TRANSPOSED if isinstance(kernel, Transposed) else MIN_TILES
    return tiles_pay(x, kernel, tiles, least)


def conv_neighbours(x: Array, kernel: Kernel, stride: int, padding: int) -> Array:
    """`conv` as one matrix product."""
    # Why a GPU takes it too: its library changes the layout of kernel and input for every
    # convolution over so few steps, and XLA mistakes some for the gradient of a kernel. On an
    # H200 sampling took 2.8 to 3.5 times as long at batch 1, 1.2 to 1.3 times from 64 on, and
    # training 1.2 to 1.3 (`experiments/gpu`).
    return dot(neighbours(x, kernel.shape[0], stride, padding), kernel)


def neighbours(x: Array, size: int, stride: int, padding: int) -> Array:
    """[B, L, C] -> [B, L', size * C]: the inputs of every output step, side by side."""
    length = (x.shape[1] + 2 * padding - size) // stride + 1
    x = jnp.pad(x, ((0, 0), (padding, padding), (0, 0)))
    # The i-th neighbour of all outputs is a strided slice of the padded input.
    last = (length - 1) * stride + 1
    return jnp.concatenate([x[:, i : i + last : stride] for i in range(size)], axis=-1)


def conv_taps(x: Array, kernel: Kernel, stride: int, padding: int) -> Array:
    """`conv` as one matrix product per tap of the kernel, padding left out."""
    steps = x.shape[1]
    length = (steps + 2 * padding - kernel.shape[0]) // stride + 1
    y = jnp.zeros((x.shape[0], length, kernel.shape[2]), x.dtype)
    for tap, weights in enumerate(taps(kernel)):
        # This tap's product with the inputs under it, added to the outputs that see them.
        window = tap_window(steps, length, tap, stride, padding)
        if window:
            part = dot(x[:, window.inputs], weights)
            y += jnp.pad(part, ((0, 0), window.missing, (0, 0)))
    return y


class TapWindow(NamedTuple):
    """The input steps under one tap of a kernel that are not padding.

    missing: outputs whose input under this tap is padding, (at the start, at the end).
    """

    inputs: slice
    missing: tuple[int, int]


def tap_window(steps: int, length: int, tap: int, stride: int, padding: int) -> TapWindow | None:
    """The window of a tap, of `steps` inputs and `length` outputs; None if all is padding."""
    # Output i sees input i * stride - padding + tap under this tap.
    first = max(0, -((tap - padding) // stride))
    stop = min(length, (steps - 1 + padding - tap) // stride + 1)
    if first >= stop:
        return None
    start = first * stride - padding + tap
    last = start + (stop - first - 1) * stride
    return TapWindow(slice(start, last + 1, stride), (first, length - stop))


def upsample(x: Array, kernel: Kernel, *, kernels: str = "auto") -> Array:
    """Twice as many steps, as torch's ConvTranspose1d(kernel 4, stride 2, padding 1).

    x [B, L, C], kernel [4, C, D] in torch's order of taps -> [B, 2 L, D].
    kernels: "auto" or "xla", see `ops/kernels.py`.
    """
    if isinstance(kernel, Transposed):
        return upsample_matmul(x, kernel)
    return by_platform(
        kernels, x, kernel, xla=upsample_xla, cpu=upsample_matmul, cuda=upsample_matmul
    )


def upsample_xla(x: Array, kernel: Array) -> Array:
    """`upsample` by XLA's transposed convolution."""
    return lax.conv_transpose(
        x, kernel[::-1], (2,), ((2, 2),), dimension_numbers=("NWC", "WIO", "NWC")
    )


def upsample_matmul(x: Array, kernel: Kernel) -> Array:
    """`upsample` as one matrix product.

    Every input step times all taps. Output step 2i is input i under tap 1 plus input i - 1
    under tap 3; output step 2i + 1 is input i under tap 2 plus input i + 1 under tap 0.
    """
    y = times_all_taps(x, kernel)  # [B, L, 4, D]
    before = ((0, 0), (1, 0), (0, 0))
    after = ((0, 0), (0, 1), (0, 0))
    # Neighbours come from the step before (even) and the step after (odd); none at the ends.
    even = y[:, :, 1] + jnp.pad(y[:, :-1, 3], before)
    odd = y[:, :, 2] + jnp.pad(y[:, 1:, 0], after)
    return jnp.stack([even, odd], axis=2).reshape(x.shape[0], -1, kernel.shape[2])


def times_all_taps(x: Array, kernel: Kernel) -> Array:
    """Every step of x [B, L, C] times every tap of the kernel [k, C, D]: [B, L, k, D]."""
    size, inputs, outputs = kernel.shape
    if isinstance(kernel, Transposed):
        # Stored as [D, k, C]: the product is [B, L, D k].
        y = dot(x, Transposed(kernel.array.reshape(-1, inputs)))
        return jnp.swapaxes(y.reshape(*x.shape[:2], outputs, size), 2, 3)
    # [k, C, D] -> [C, k D]
    side_by_side = jnp.swapaxes(kernel, 0, 1).reshape(inputs, size * outputs)
    return matmul_2d(x, side_by_side).reshape(*x.shape[:2], size, outputs)
