"""1-D convolutions over a short horizon, channels last, the fast way on each machine.

XLA's CPU convolution falls off its fast path where the kernel is longer than the
input (horizon 16 and three levels: length 4, kernel 5), by a factor of 100. There a
convolution over a few steps is better written as one matrix product: on CPU the k
neighbours of every step are laid side by side and multiplied by the kernel as a
matrix. Accelerators keep XLA's convolution. Both are the same function of the same
parameters, in torch's geometry (symmetric padding, also at stride 2).
"""

import jax
from jax import lax
import jax.numpy as jnp

Array = jax.Array


# Up to this many steps, edges are a good part of the window: at length 4 and kernel 5,
# 6 of 20 products are with padding, and one product a step leaves them out. Each of
# these reads the kernel again, which a small batch (robot: 1) would wait for. Measured at
# length 8 the gain is 10 %, not worth eight times the products to compile.
SHORT, LARGE_BATCH = 4, 16


def neighbours(x: Array, size: int, stride: int, padding: int) -> Array:
    """[B, L, C] -> [B, L', size * C]: the inputs of every output step, side by side."""
    length = (x.shape[1] + 2 * padding - size) // stride + 1
    x = jnp.pad(x, ((0, 0), (padding, padding), (0, 0)))
    last = (length - 1) * stride + 1
    return jnp.concatenate([x[:, i : i + last : stride] for i in range(size)], axis=-1)


def conv_steps(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """`conv` as one matrix product an output step, padding left out."""
    batch, steps, _ = x.shape
    size, _, outputs = kernel.shape
    rows = []
    for i in range((steps + 2 * padding - size) // stride + 1):
        at = i * stride - padding  # the input step under the kernel's first tap
        first, last = max(at, 0), min(at + size, steps)
        taps = kernel[first - at : last - at].reshape(-1, outputs)
        rows.append(x[:, first:last].reshape(batch, -1) @ taps)
    return jnp.stack(rows, axis=1)


def is_large(batch) -> bool:
    """Whether a batch is large; one that is a symbol (`jax.export`) may be any size: no."""
    return isinstance(batch, int) and batch >= LARGE_BATCH


def conv_matmul(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """`conv` as matrix products."""
    if x.shape[1] <= SHORT and is_large(x.shape[0]):
        return conv_steps(x, kernel, stride, padding)
    size, inputs, outputs = kernel.shape
    return neighbours(x, size, stride, padding) @ kernel.reshape(size * inputs, outputs)


def conv_xla(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """`conv` by XLA's convolution."""
    return lax.conv_general_dilated(
        x, kernel, (stride,), ((padding, padding),), dimension_numbers=("NWC", "WIO", "NWC")
    )


def conv(x: Array, kernel: Array, *, stride: int = 1, padding: int = 0) -> Array:
    """Cross-correlation along time, as torch's Conv1d.

    x [B, L, C], kernel [k, C, D] -> [B, (L + 2 padding - k) // stride + 1, D].
    """
    if kernel.shape[0] == 1:
        return x @ kernel[0]
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: conv_matmul(x, kernel, stride, padding),
        default=lambda x, kernel: conv_xla(x, kernel, stride, padding),
    )


def upsample_matmul(x: Array, kernel: Array) -> Array:
    """`upsample` as one matrix product.

    Output step 2i sees inputs (i, i - 1) through taps (1, 3), step 2i + 1 sees inputs
    (i + 1, i) through taps (0, 2): all of it from the three neighbours of step i.
    """
    inputs, outputs = kernel.shape[1:]
    none = jnp.zeros((inputs, outputs), kernel.dtype)
    even = jnp.stack([kernel[3], kernel[1], none])  # from i - 1, i, i + 1
    odd = jnp.stack([none, kernel[2], kernel[0]])
    both = jnp.concatenate([even, odd], axis=-1).reshape(3 * inputs, 2 * outputs)
    y = neighbours(x, 3, 1, 1) @ both  # [B, L, 2 D]
    return y.reshape(x.shape[0], 2 * x.shape[1], outputs)


def upsample_xla(x: Array, kernel: Array) -> Array:
    """`upsample` by XLA's transposed convolution."""
    return lax.conv_transpose(
        x, kernel[::-1], (2,), ((2, 2),), dimension_numbers=("NWC", "WIO", "NWC")
    )


def upsample(x: Array, kernel: Array) -> Array:
    """Twice as many steps, as torch's ConvTranspose1d(kernel 4, stride 2, padding 1).

    x [B, L, C], kernel [4, C, D] in torch's order of taps -> [B, 2 L, D].
    """
    return lax.platform_dependent(x, kernel, cpu=upsample_matmul, default=upsample_xla)


def group_norm(x: Array, scale: Array, bias: Array, groups: int) -> Array:
    """GroupNorm over [B, L, C]: statistics over the steps and a group's channels.

    Two reductions, steps first: a CPU vectorizes the long one over the channels. Whatever
    x is, the arithmetic is float32's: a variance of few bits would move every channel.
    """
    batch, _, channels = x.shape
    dtype, x = x.dtype, x.astype(jnp.float32)

    def mean(y):
        shape = (batch, groups, channels // groups)
        y = jnp.mean(jnp.mean(y, axis=1).reshape(shape), axis=-1, keepdims=True)
        return jnp.broadcast_to(y, shape).reshape(batch, 1, channels)

    centered = x - mean(x)
    y = centered * (jax.lax.rsqrt(mean(centered * centered) + 1e-5) * scale) + bias
    return y.astype(dtype)
