"""2-D convolutions and the ResNet's pooling, channels last, the fast way on each machine.

Accelerators get XLA's own. Its CPU is fast where an image is large, and not

- where many images are convolved 3 × 3 to 3 × 3 pixels: 25 products for 81 (`winograd`, in
  both directions), convolutions in 0.47 to 0.80 of the time and their gradients in 0.46 to 0.75;
- of few at the end of a ResNet, where most of a 3 × 3 kernel lies on padding: 49 of 81
  products count at 3 × 3, and a product a tap of just those takes 0.7 of the time;
- in the gradients of a shortcut, a 1 × 1 kernel with stride 2: 0.60, as a product;
- in the gradient of max pooling: 0.17, as a sum of shifted copies.

Both ways are the same function of the same parameters. (`experiments/cpu/ways.py`) Barriers
keep what is read several times from being made as many times: x and its gradient in the
copies that a kernel's gradient takes of them, the pixels that max pooling chose in each of
their nine uses (`cpu.compiler_options`; 118 and 52 ms of an image policy's step, 49 and 7).
"""

from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from dpjax.ops.conv1d import covered
from dpjax.ops.transposed import flat, flat_dot, reaches, taps
from dpjax.ops.winograd import at_points, combine, inputs_of_tiles, interpolation, pays

Array = jax.Array

SMALL_IMAGE = 3  # pixels a side; at 6 both ways take the same time
TILE = 3  # pixels a side; 4 would need 36 products for 144, and its sums take the gain
# Images and tiles from which on tiles gain, and what of all products they may take.
TILED_BATCH, TILED_ROWS, TILED_SHARE = 16, 64, 0.6


def by_taps(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """The convolution as one matrix product a tap of the kernel, padding left out."""
    high, wide, inputs, outputs = kernel.shape
    height, width = ((n + 2 * padding - k) // stride + 1 for n, k in zip(x.shape[1:], (high, wide)))
    y = jnp.zeros((x.shape[0], height, width, outputs), x.dtype)
    for tap, weights in enumerate(taps(kernel.reshape(high * wide, inputs, outputs))):
        down = covered(x.shape[1], height, tap // wide, stride, padding)
        along = covered(x.shape[2], width, tap % wide, stride, padding)
        if down and along:
            seen = flat_dot(x[:, down.inputs, along.inputs], weights)
            y += jnp.pad(seen, ((0, 0), down.edges, along.edges, (0, 0)))
    return y


def tiled(x: Array, kernel: Array, stride: int, padding: int) -> bool:
    """Whether `by_tiles` is the fastest way, and exact enough."""
    batch, height, width, _ = x.shape
    if (*kernel.shape[:2], stride, padding) != (3, 3, 1, 1) or not reaches(batch, TILED_BATCH):
        return False
    tiles = -(-height // TILE) * -(-width // TILE)
    products = (3 * height - 2) * (3 * width - 2)  # those that are not with padding
    few = tiles * (TILE + 2) ** 2 <= TILED_SHARE * products
    return few and pays(x, kernel, tiles, TILED_ROWS)


def by_tiles(x: Array, kernel: Array) -> Array:
    """The convolution of 3 × 3 that keeps an image's size: (1) of `winograd` down and along."""
    batch, height, width, _ = x.shape
    down, along = -(-height // TILE), -(-width // TILE)
    n = TILE + 2
    of_kernel, of_x, of_y = at_points(3, n), interpolation(n), at_points(TILE, n).T
    columns = lambda row: inputs_of_tiles(row, 2, TILE, 3, along)
    rows = combine(of_x, inputs_of_tiles(x, 1, TILE, 3, down))
    seen = [map(flat, combine(of_x, columns(row))) for row in rows]
    weights = [combine(of_kernel, taps(row)) for row in combine(of_kernel, taps(kernel))]
    made = [combine(of_y, [a @ b for a, b in zip(*pair)]) for pair in zip(seen, weights)]
    y = [combine(of_y, column) for column in zip(*made)]  # TILE columns of TILE pixels
    pixel = lambda at: at.reshape(batch, down, along, -1)
    y = jnp.stack([jnp.stack([pixel(at) for at in row], 3) for row in zip(*y)], 2)
    return y.reshape(batch, down * TILE, along * TILE, -1)[:, :height, :width]


def by_xla(x: Array, kernel: Array, stride: int, padding: int) -> Array:
    """XLA's convolution."""
    around = ((padding, padding),) * 2
    return lax.conv_general_dilated(
        x, kernel, (stride, stride), around, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def conv2d(x: Array, kernel: Array, *, stride: int = 1, padding: int = 0) -> Array:
    """Cross-correlation, as torch's Conv2d.

    x [B, H, W, C], kernel [k, l, C, D] -> [B, H', W', D], H' = (H + 2 padding - k) // stride + 1.
    """
    default = lambda x, kernel: by_xla(x, kernel, stride, padding)
    if kernel.shape[:2] == (1, 1) and not padding:
        on_cpu = lambda x, kernel: flat_dot(x[:, ::stride, ::stride], kernel[0, 0])
    elif tiled(x, kernel, stride, padding):
        on_cpu = jax.checkpoint(by_tiles)  # else what is at points is kept: 1.9 GB of 7.2
    elif max(x.shape[1:3]) <= SMALL_IMAGE:
        on_cpu = lambda x, kernel: by_taps(x, kernel, stride, padding)
    else:
        on_cpu = default
    fence = lax.optimization_barrier
    fenced = lambda x, kernel: fence(on_cpu(fence(x), kernel))
    return lax.platform_dependent(x, kernel, cpu=fenced, default=default)


def max_pool(x: Array) -> Array:
    """The largest of 3 × 3 pixels, every second one, padded by 1: [B, H, W, C] -> half of it."""
    xla = lambda x: nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    return lax.platform_dependent(x, cpu=pool, default=xla)


@jax.custom_vjp
def pool(x: Array) -> Array:
    """`max_pool`, its gradient made of shifted copies; of equal pixels the first gets it."""
    return pool_forward(x)[0]


def pool_forward(x: Array) -> tuple[Array, tuple[Array, Array]]:
    """(`max_pool`, (which of the 9 pixels it was, an array of x's shape without numbers))."""
    height, width = ((n + 1) // 2 for n in x.shape[1:3])
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-jnp.inf)
    largest, which = None, None
    for tap in range(9):
        down, along = divmod(tap, 3)
        seen = padded[:, down : down + 2 * height - 1 : 2, along : along + 2 * width - 1 : 2]
        if largest is None:
            largest, which = seen, jnp.zeros(seen.shape, jnp.int8)
        else:
            which = jnp.where(seen > largest, jnp.int8(tap), which)
            largest = jnp.maximum(largest, seen)  # NaN stays NaN
    return largest, (which, jnp.zeros((0, *x.shape[1:3]), x.dtype))


def pool_backward(kept: tuple[Array, Array], g: Array) -> tuple[Array]:
    """Pixel 2u is the middle of window u; 2u + 1 is the end of u and the start of u + 1."""
    which, like = kept
    which, g = lax.optimization_barrier((which, g))
    later = ((0, 1), (0, 0))

    def tap(down, along):
        """The gradient of the pixels that windows see at this place."""
        part = jnp.where(which == 3 * down + along, g, 0)
        rows, columns = later[down != 0], later[along != 0]
        part = part[:, rows[1] :, columns[1] :]
        return jnp.pad(part, ((0, 0), rows, columns, (0, 0)))

    sides = ((1,), (2, 0))  # where in their windows pixels 2u and 2u + 1 are
    square = [[sum(tap(i, j) for i in down for j in along) for along in sides] for down in sides]
    y = jnp.stack([jnp.stack(row, axis=3) for row in square], axis=2)
    y = y.reshape(len(g), 2 * g.shape[1], 2 * g.shape[2], -1)
    return (y[:, : like.shape[1], : like.shape[2]],)


pool.defvjp(pool_forward, pool_backward)
