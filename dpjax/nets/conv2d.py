"""2-D convolutions, channels last, in torch's geometry, and fast to train on CPUs too.

XLA's CPU convolution is fast forward, but its gradient with respect to the kernel, a
convolution whose window is the whole image, is many times slower than the forward one.
Here that gradient is one matrix product a tap of the kernel,

    dk[i, j] = Σ over outputs of x[stride · output + (i, j)]ᵀ dy[output]            (1)

and the one with respect to x is a forward convolution with the kernel turned around.
Accelerators keep XLA's own gradients. Both are the same function.
"""

import functools
import math

import jax
from jax import lax
import jax.numpy as jnp

Array = jax.Array

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def forward(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """`conv` by XLA."""
    pad = (padding, padding)
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), (pad, pad), dimension_numbers=DIMENSIONS
    )


def kernel_gradient(x: Array, dy: Array, size: tuple[int, int], stride: int, padding: int):
    """Equation (1): x [B, H, W, C], dy [B, H', W', D] -> [*size, C, D].

    Where x has few channels, the products of a row of taps are one, and a part of the
    batch is done at a time, which stays in the cache: a third of the time at 7 × 7 and C = 3.
    """
    pad = (padding, padding)
    x = jnp.pad(x, ((0, 0), pad, pad, (0, 0)))
    if x.shape[-1] >= FEW_CHANNELS:
        return _taps(x, dy, size, stride, together=1)
    parts = math.gcd(len(x), PARTS)
    split = lambda a: a.reshape(parts, -1, *a.shape[1:])
    one = lambda pair: _taps(*pair, size, stride, together=size[1])
    return lax.map(one, (split(x), split(dy))).sum(0)


FEW_CHANNELS, PARTS = 8, 8


def _taps(x, dy, size, stride, together):
    """Equation (1) of a padded x; `together` taps of a row are one product."""
    batch, height, width, outputs = dy.shape
    rows, columns = (height - 1) * stride + 1, (width - 1) * stride + 1
    flat, products = dy.reshape(-1, outputs), []
    for i in range(size[0]):
        for first in range(0, size[1], together):
            taps = [
                x[:, i : i + rows : stride, j : j + columns : stride]
                for j in range(first, first + together)
            ]
            seen = jnp.concatenate(taps, axis=-1).reshape(batch * height * width, -1)
            products.append(seen.T @ flat)
    return jnp.stack(products).reshape(*size, x.shape[-1], outputs)


def input_gradient(dy: Array, kernel: Array, shape, stride: int, padding: int) -> Array:
    """dy [B, H', W', D] -> [B, H, W, C] of that shape: a convolution with zeros between."""
    inner = stride - 1
    dy = lax.pad(dy, jnp.zeros((), dy.dtype), ((0, 0, 0), (0, 0, inner), (0, 0, inner), (0, 0, 0)))
    pads = []
    for full, have, taps in zip(shape[1:3], dy.shape[1:3], kernel.shape[:2]):
        low = taps - 1 - padding
        pads.append((low, full + taps - 1 - low - have))
    turned = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    return lax.conv_general_dilated(dy, turned, (1, 1), pads, dimension_numbers=DIMENSIONS)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def conv_cpu(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """`conv` with the gradients above."""
    return forward(x, kernel, stride, padding)


def _conv_cpu_forward(x, kernel, stride, padding):
    return forward(x, kernel, stride, padding), (x, kernel)


def _conv_cpu_backward(stride, padding, seen, dy):
    x, kernel = seen
    return (
        input_gradient(dy, kernel, x.shape, stride, padding),
        kernel_gradient(x, dy, kernel.shape[:2], stride, padding),
    )


conv_cpu.defvjp(_conv_cpu_forward, _conv_cpu_backward)


def conv(x: Array, kernel: Array, *, stride: int = 1, padding: int = 0) -> Array:
    """Cross-correlation, as torch's Conv2d.

    x [B, H, W, C], kernel [k, k, C, D] -> [B, (H + 2 padding - k) // stride + 1, …, D].
    """
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: conv_cpu(x, kernel, stride, padding),
        default=lambda x, kernel: forward(x, kernel, stride, padding),
    )


def max_pool(x: Array) -> Array:
    """3 × 3 maxima at stride 2 and padding 1: [B, H, W, C] -> [B, ⌈H/2⌉, ⌈W/2⌉, C].

    As the greatest of nine slices: XLA's CPU gradient of a window's maximum is slow.
    """
    height, width = (-(-n // 2) for n in x.shape[1:3])
    pad = (1, 1)
    x = jnp.pad(x, ((0, 0), pad, pad, (0, 0)), constant_values=-jnp.inf)
    rows, columns = 2 * height - 1, 2 * width - 1
    slices = [x[:, i : i + rows : 2, j : j + columns : 2] for i in range(3) for j in range(3)]
    return functools.reduce(jnp.maximum, slices)
