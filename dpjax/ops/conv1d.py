"""1-D convolutions over a short horizon, channels last, the fast way on each machine.

XLA's CPU convolution falls off its fast path where the kernel is longer than the
input (horizon 16 and three levels: length 4, kernel 5), by a factor of 100. There a
convolution over a few steps is better written as one matrix product: on CPU the k
neighbours of every step are laid side by side and multiplied by the kernel as a
matrix; many rows are convolved in tiles, with fewer products (`winograd`). A GPU does the
former with any number of rows; TPUs keep XLA's convolution. All are the same function of the
same parameters, in torch's geometry (symmetric padding, also at stride 2). A kernel may come
as Rows (`rows`), turned for a CPU: then it is matrix products everywhere.
"""

from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from dpjax.ops.transposed import MANY, Kernel, Rows, dot, flat_dot, reaches, taps
from dpjax.ops.winograd import TILE, conv_tiles, pays

Array = jax.Array

# With a kernel this large (floats a tap) a product a tap is the fastest on a CPU: no input
# five times over, and no product with padding, which at length 4 and kernel 5 is 6 of 20.
# Measured, a gradient of four convolutions, batch 64: 104 against 131 ms at 1024 channels
# and length 4, 61 against 68 at 512 and 8, 39 against 35 at 256 and 16. Each tap is a copy
# of that part of the kernel, which a small batch (robot: 1) would wait for.
LARGE_TAP, LARGE_BATCH = 2**18, 16
# `conv_tiles` makes 8 products for 20 (kernel 5), 7 at four steps, and 6 for 12 (kernel 3). It
# adds up kernels, which few rows (batch times tiles) would wait for. Those of a plan, which are
# turned, XLA adds up once before the loop: plans became 1.26 times as fast with 16 rows, but
# 0.84 times where there is one step and no loop.
TILED, TILED_ROWS, TILED_LOOP_ROWS = (3, 5), 32, 16


def neighbours(x: Array, size: int, stride: int, padding: int) -> Array:
    """[B, L, C] -> [B, L', size * C]: the inputs of every output step, side by side."""
    length = (x.shape[1] + 2 * padding - size) // stride + 1
    x = jnp.pad(x, ((0, 0), (padding, padding), (0, 0)))
    last = (length - 1) * stride + 1
    return jnp.concatenate([x[:, i : i + last : stride] for i in range(size)], axis=-1)


class Covered(NamedTuple):
    """What a tap of a kernel works on: input steps, and the outputs left out (before, after)."""

    inputs: slice
    edges: tuple[int, int]


def covered(steps: int, length: int, tap: int, stride: int, padding: int) -> Covered | None:
    """Of `length` outputs those whose input under this tap is no padding; None if none is."""
    first = max(0, -((tap - padding) // stride))
    stop = min(length, (steps - 1 + padding - tap) // stride + 1)
    if first >= stop:
        return None
    start = first * stride - padding + tap
    last = start + (stop - first - 1) * stride
    return Covered(slice(start, last + 1, stride), (first, length - stop))


def conv_taps(x: Array, kernel: Kernel, stride: int, padding: int) -> Array:
    """`conv` as one matrix product a tap of the kernel, padding left out."""
    steps, size = x.shape[1], kernel.shape[0]
    length = (steps + 2 * padding - size) // stride + 1
    y = jnp.zeros((x.shape[0], length, kernel.shape[2]), x.dtype)
    for tap, weights in enumerate(taps(kernel)):
        at = covered(steps, length, tap, stride, padding)
        if at:
            y += jnp.pad(dot(x[:, at.inputs], weights), ((0, 0), at.edges, (0, 0)))
    return y


def saves(x: Array, kernel: Kernel, stride: int, padding: int) -> bool:
    """Whether `conv_tiles` is the fastest way, and exact enough: it adds up kernels."""
    size, (tiles, rest) = kernel.shape[0], divmod(x.shape[1], TILE)
    if stride != 1 or 2 * padding + 1 != size or size not in TILED or not tiles or rest:
        return False
    return pays(x, kernel, tiles, TILED_LOOP_ROWS if isinstance(kernel, Rows) else TILED_ROWS)


def conv_beside(x: Array, kernel: Kernel, stride: int, padding: int) -> Array:
    """`conv` as one matrix product.

    A GPU's library turns kernel and input around for every convolution over so few steps, and
    takes some for the gradient of a kernel: on an H200 a plan took 2.8 to 3.5 times as long at
    batch 1, 1.2 to 1.3 times from 64 on, and training 1.2 to 1.3 (`experiments/gpu`).
    """
    return dot(neighbours(x, kernel.shape[0], stride, padding), kernel)


def conv_matmul(x: Array, kernel: Kernel, stride: int, padding: int) -> Array:
    """`conv` as matrix products, the fastest way on a CPU."""
    if saves(x, kernel, stride, padding):
        return conv_tiles(x, kernel)
    _, inputs, outputs = kernel.shape
    turned = isinstance(kernel, Rows)
    large = turned or inputs * outputs >= LARGE_TAP
    if large and reaches(x.shape[0], MANY if turned else LARGE_BATCH):
        return conv_taps(x, kernel, stride, padding)
    return conv_beside(x, kernel, stride, padding)


def conv_xla(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """`conv` by XLA's convolution."""
    return lax.conv_general_dilated(
        x, kernel, (stride,), ((padding, padding),), dimension_numbers=("NWC", "WIO", "NWC")
    )


def conv(x: Array, kernel: Kernel, *, stride: int = 1, padding: int = 0) -> Array:
    """Cross-correlation along time, as torch's Conv1d.

    x [B, L, C], kernel [k, C, D] -> [B, (L + 2 padding - k) // stride + 1, D].
    """
    if kernel.shape[0] == 1:
        return dot(x, kernel)
    if isinstance(kernel, Rows):
        return conv_matmul(x, kernel, stride, padding)
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: conv_matmul(x, kernel, stride, padding),
        cuda=lambda x, kernel: conv_beside(x, kernel, stride, padding),
        default=lambda x, kernel: conv_xla(x, kernel, stride, padding),
    )


def all_taps(x: Array, kernel: Kernel) -> Array:
    """Every step of x [B, L, C] times every tap of the kernel [k, C, D]: [B, L, k, D]."""
    size, inputs, outputs = kernel.shape
    if isinstance(kernel, Rows):
        y = dot(x, Rows(tuple(part.reshape(-1, inputs) for part in kernel.parts)))
        return jnp.swapaxes(y.reshape(*x.shape[:2], outputs, size), 2, 3)
    flat = jnp.swapaxes(kernel, 0, 1).reshape(inputs, size * outputs)
    return flat_dot(x, flat).reshape(*x.shape[:2], size, outputs)


def upsample_matmul(x: Array, kernel: Kernel) -> Array:
    """`upsample` as one matrix product.

    Every input step times all taps; output step 2i is then input i through tap 1 and
    i - 1 through tap 3, step 2i + 1 is input i through tap 2 and i + 1 through tap 0.
    """
    y = all_taps(x, kernel)
    before, after = ((0, 0), (1, 0), (0, 0)), ((0, 0), (0, 1), (0, 0))
    even = y[:, :, 1] + jnp.pad(y[:, :-1, 3], before)
    odd = y[:, :, 2] + jnp.pad(y[:, 1:, 0], after)
    return jnp.stack([even, odd], axis=2).reshape(x.shape[0], -1, kernel.shape[2])


def upsample_xla(x: Array, kernel: Array) -> Array:
    """`upsample` by XLA's transposed convolution."""
    return lax.conv_transpose(
        x, kernel[::-1], (2,), ((2, 2),), dimension_numbers=("NWC", "WIO", "NWC")
    )


def upsample(x: Array, kernel: Kernel) -> Array:
    """Twice as many steps, as torch's ConvTranspose1d(kernel 4, stride 2, padding 1).

    x [B, L, C], kernel [4, C, D] in torch's order of taps -> [B, 2 L, D].
    """
    if isinstance(kernel, Rows):
        return upsample_matmul(x, kernel)
    product = upsample_matmul
    return lax.platform_dependent(x, kernel, cpu=product, cuda=product, default=upsample_xla)
