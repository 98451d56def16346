"""2-D convolutions and the ResNet's max pooling, channels last.

Accelerators take XLA's own. XLA's CPU backend is fast where an image is large, and slow

- in 3 × 3 convolutions of many images: tiles of 3 × 3 pixels (`winograd`, in both directions)
  need 25 products instead of 81, and 0.46 to 0.80 of the time;
- in 3 × 3 convolutions of few images at the end of a ResNet, where most of the kernel lies on
  padding: at 3 × 3 pixels 49 of 81 products count, and computing those alone, one product per
  tap, takes 0.7 of the time;
- in the gradients of a shortcut, a 1 × 1 kernel with stride 2: 0.60 of the time, as a product;
- in the gradient of max pooling: 0.17 of the time, as a sum of shifted copies.

Both forms are the same function of the same parameters (`experiments/cpu/ways.py`).
"""

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from dpjax.ops.conv1d import tap_window
from dpjax.ops.kernels import by_platform
from dpjax.ops.transposed import as_matrix, is_at_least, matmul_2d, taps
from dpjax.ops.winograd import combine, evaluation, interpolation, tile_inputs, tiles_pay

Array = jax.Array

SMALL_IMAGE = 3  # pixels per side; at 6 one product per tap takes as long as XLA's convolution
TILE = 3  # outputs per side of a tile; 4 need 36 products for 144, but their sums eat the gain
# Tiles are used from this batch size and these tiles per batch on, where they need at most this
# share of the products that are not with padding.
MIN_BATCH = 16
MIN_TILES = 64
MAX_SHARE = 0.6


def conv2d(
    x: Array, kernel: Array, *, stride: int = 1, padding: int = 0, kernels: str = "auto"
) -> Array:
    """Cross-correlation, as torch's Conv2d.

    x [B, H, W, C], kernel [k, l, C, D] -> [B, H', W', D], H' = (H + 2 padding - k) // stride + 1.
    kernels: "auto" or "xla", see `ops/kernels.py`.
    """
    # Without the barriers (`runtime.compiler_options`) XLA computes x and its gradient again in
    # each copy that the gradient of a kernel takes of them: 118 ms of an image policy's training
    # step, 49 with barriers.
    fence = lax.optimization_barrier
    return by_platform(
        kernels,
        x,
        kernel,
        xla=lambda x, kernel: conv_xla(x, kernel, stride, padding),
        cpu=lambda x, kernel: fence(conv_cpu(fence(x), kernel, stride, padding)),
    )


def conv_xla(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """`conv2d` by XLA's convolution."""
    pads = ((padding, padding), (padding, padding))
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def conv_cpu(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """`conv2d` in the form that is the fastest on a CPU."""
    # A shortcut: a product of every stride-th pixel.
    if kernel.shape[:2] == (1, 1) and not padding:
        return matmul_2d(x[:, ::stride, ::stride], kernel[0, 0])
    if is_tiled(x, kernel, stride, padding):
        # Values at points are computed again in the backward pass: keeping them takes 1.9 of
        # 7.2 GB, and is not faster.
        return jax.checkpoint(conv_tiles)(x, kernel)
    # The end of a ResNet.
    if max(x.shape[1:3]) <= SMALL_IMAGE:
        return conv_taps(x, kernel, stride, padding)
    return conv_xla(x, kernel, stride, padding)


def conv_taps(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """`conv2d` as one matrix product per tap of the kernel, padding left out."""
    rows, columns, inputs, outputs = kernel.shape
    height = (x.shape[1] + 2 * padding - rows) // stride + 1
    width = (x.shape[2] + 2 * padding - columns) // stride + 1
    y = jnp.zeros((x.shape[0], height, width, outputs), x.dtype)
    for tap, weights in enumerate(taps(kernel.reshape(rows * columns, inputs, outputs))):
        # The pixels under this tap that are not padding, down and along the image.
        down = tap_window(x.shape[1], height, tap // columns, stride, padding)
        along = tap_window(x.shape[2], width, tap % columns, stride, padding)
        if down and along:
            part = matmul_2d(x[:, down.inputs, along.inputs], weights)
            y += jnp.pad(part, ((0, 0), down.missing, along.missing, (0, 0)))
    return y


def is_tiled(x: Array, kernel: Array, stride: int, padding: int) -> bool:
    """Whether `conv_tiles` computes this convolution, is the fastest, and precise enough."""
    batch, height, width, _ = x.shape
    if (*kernel.shape[:2], stride, padding) != (3, 3, 1, 1) or not is_at_least(batch, MIN_BATCH):
        return False
    # Tiles that reach over the edge count as whole ones.
    tiles = -(-height // TILE) * -(-width // TILE)
    products = (3 * height - 2) * (3 * width - 2)  # those that are not with padding
    saves_enough = tiles * (TILE + 2) ** 2 <= MAX_SHARE * products
    return saves_enough and tiles_pay(x, kernel, tiles, MIN_TILES)


def conv_tiles(x: Array, kernel: Array) -> Array:
    """A 3 × 3 convolution that keeps the image's size: (1) of `winograd` down and along."""
    batch, height, width, _ = x.shape
    tiles_down = -(-height // TILE)
    tiles_along = -(-width // TILE)
    n = TILE + 2
    # The matrices of (1); the kernel is s there, the pixels are l.
    to_points = interpolation(n)
    kernel_to_points = evaluation(3, n)
    from_points = evaluation(TILE, n).T

    # The n × n values of every tile, [B tiles, C] each, and of the kernel, [C, D] each.
    rows = combine(to_points, tile_inputs(x, 1, TILE, 3, tiles_down))
    values = []
    for row in rows:
        columns = combine(to_points, tile_inputs(row, 2, TILE, 3, tiles_along))
        values.append([as_matrix(column) for column in columns])
    weights = [
        combine(kernel_to_points, taps(row)) for row in combine(kernel_to_points, taps(kernel))
    ]

    # One product per point, and back into pixels: first along, then down.
    products = [[a @ b for a, b in zip(*pair)] for pair in zip(values, weights)]
    along = [combine(from_points, row) for row in products]
    pixels = [combine(from_points, column) for column in zip(*along)]  # [TILE along][TILE down]
    in_tiles = lambda pixel: pixel.reshape(batch, tiles_down, tiles_along, -1)
    # The pixels of a tile next to each other, and the tiles next to each other.
    y = jnp.stack(
        [jnp.stack([in_tiles(pixel) for pixel in row], axis=3) for row in zip(*pixels)], axis=2
    )  # [B, tiles down, TILE, tiles along, TILE, D]
    # Tiles may reach over the edge of the image.
    return y.reshape(batch, tiles_down * TILE, tiles_along * TILE, -1)[:, :height, :width]


def max_pool(x: Array, *, kernels: str = "auto") -> Array:
    """The maximum of 3 × 3 pixels with stride 2 and padding 1.

    x [B, H, W, C] -> [B, ⌈H/2⌉, ⌈W/2⌉, C]. kernels: "auto" or "xla", see `ops/kernels.py`.
    """
    return by_platform(kernels, x, xla=max_pool_xla, cpu=max_pool_shifted)


def max_pool_xla(x: Array) -> Array:
    """`max_pool` by XLA's window reduction."""
    return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))


@jax.custom_vjp
def max_pool_shifted(x: Array) -> Array:
    """`max_pool` with a gradient made of shifted copies; among equal pixels the first gets it."""
    return max_pool_forward(x)[0]


def max_pool_forward(x: Array) -> tuple[Array, tuple[Array, Array]]:
    """(`max_pool`, (which of the 9 pixels it was, an empty array with x's height and width))."""
    height = (x.shape[1] + 1) // 2
    width = (x.shape[2] + 1) // 2
    # Padding never wins.
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    # The maximum so far, and at which of the 9 places it was.
    largest = None
    for tap in range(9):
        down, along = divmod(tap, 3)
        pixels = padded[:, down : down + 2 * height - 1 : 2, along : along + 2 * width - 1 : 2]
        if largest is None:
            largest = pixels
            which = jnp.zeros(pixels.shape, jnp.int8)
        else:
            which = jnp.where(pixels > largest, jnp.int8(tap), which)
            largest = jnp.maximum(largest, pixels)  # NaN stays NaN
    # x itself is not needed for the gradient, only its height and width.
    return largest, (which, jnp.zeros((0, *x.shape[1:3]), x.dtype))


def max_pool_backward(residuals: tuple[Array, Array], g: Array) -> tuple[Array]:
    """The gradient of x: each pixel's share of the gradients g of the windows that hold it."""
    which, like_x = residuals
    # Without the barrier XLA computes both again in each of their nine uses: 52 ms of an image
    # policy's training step, 7 with it.
    which, g = lax.optimization_barrier((which, g))
    next_window = ((0, 1), (0, 0))

    def gradient_at(down: int, along: int) -> Array:
        """The gradient of the pixels at this place in their windows."""
        part = jnp.where(which == 3 * down + along, g, 0)
        # A pixel at place 0 belongs to the next window: the copy is shifted by one.
        rows = next_window[down != 0]
        columns = next_window[along != 0]
        part = part[:, rows[1] :, columns[1] :]
        return jnp.pad(part, ((0, 0), rows, columns, (0, 0)))

    # Pixel 2u is the middle of window u; pixel 2u + 1 is its end and the start of window u + 1.
    places = ((1,), (2, 0))
    square = [
        [sum(gradient_at(i, j) for i in down for j in along) for along in places] for down in places
    ]
    y = jnp.stack([jnp.stack(row, axis=3) for row in square], axis=2)  # [B, H', 2, W', 2, C]
    y = y.reshape(len(g), 2 * g.shape[1], 2 * g.shape[2], -1)
    return (y[:, : like_x.shape[1], : like_x.shape[2]],)


max_pool_shifted.defvjp(max_pool_forward, max_pool_backward)
