"""Convolutions with fewer products than one per step and tap, for CPUs (Winograd 1980).

Polynomials with m and k coefficients can be multiplied by their values at n = m + k - 1 points
(Toom 1963, Cook 1966): a b = V⁻¹ ((V_m a) (V_k b)), where V_m is the first m columns of the
points' Vandermonde matrix V. The transpose of that is a correlation with m outputs,

    y_i = Σ_j s_j l_(i + j),   y = V_mᵀ ((V_k s) (V⁻ᵀ l)),                         (1)

in n products instead of m k. One of s and l holds steps, [N, C], the other the taps of a kernel,
[C, D]. Their products are matrix products; the sums around them cost little. An output tile of
m = 4 steps needs n = 8 products instead of 20 for a kernel of 5, and 6 instead of 12 for one of 3.

The points are small and of both signs, so that the result is rounded only 2 to 5 times as much
as the plain sum (`experiments/cpu`). Images take (1) down and along (`conv2d.conv_tiles`), and
are rounded up to 10 times as much.
"""

import functools
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from dpjax.ops.transposed import Kernel, as_matrix, dot, is_at_least, taps

Array = jax.Array

POINTS = np.array([0, 1, -1, 0.5, -2, 2, -0.5])  # and infinity, always the last
TILE = 4  # outputs of a tile
# Where TILE steps are all there are, step and tap can differ by 2 TILE - 1 distances only: that
# many products are enough, 7 instead of 8 for a kernel of 5.
SINGLE_TILE_POINTS = 2 * TILE - 1
# XLA's CPU backend gives a product of up to 64 rows and 256 x 256 weights to a single thread,
# and does not start a second thread for up to nine of them either; with one more row it shares
# each. So 64 rows get a 65th of zeros: 1.05 times as fast. The gradient has twice as many
# products, enough for both threads, and each is faster if it is not shared: it keeps 64.
SINGLE_THREAD_ROWS = 64
MIN_KERNEL = 2**12  # numbers in a tap's kernel from which on fewer products are worth the sums


@functools.cache
def evaluation(coefficients: int, n: int) -> np.ndarray:
    """V_m [n, m]: values of m coefficients at n points; at infinity that is the last of them."""
    finite = np.vander(POINTS[: n - 1], coefficients, increasing=True)
    return np.vstack([finite, np.eye(coefficients)[-1:]])


@functools.cache
def interpolation(n: int) -> np.ndarray:
    """V⁻ᵀ [n, n]: the Lagrange polynomial of each point; infinity's is 0 at all the others."""
    finite = POINTS[: n - 1]
    # l_a(z) = Π (z - b) / Π (a - b) over the other points b: its coefficients, ascending.
    others = [np.delete(finite, i) for i in range(n - 1)]
    rows = [np.poly(roots)[::-1] / np.prod(a - roots) for a, roots in zip(finite, others)]
    # Infinity's polynomial has all finite points as roots, and the highest degree.
    return np.vstack([np.pad(rows, ((0, 0), (0, 1))), np.poly(finite)[::-1]])


def tiles_pay(x: Array, kernel: Kernel, tiles: int, least: int) -> bool:
    """Whether a batch makes at least `least` tiles, for a kernel that is worth it.

    tiles: per example. 16-bit floats keep the plain form, which is rounded less.
    """
    is_large = kernel.shape[-2] * kernel.shape[-1] >= MIN_KERNEL
    is_precise = jnp.finfo(x.dtype).bits >= 32
    return is_large and is_precise and is_at_least(x.shape[0], -(-least // tiles))


def combine(matrix: np.ndarray, items: list[Any]) -> list[Any]:
    """The linear combinations of the items that the rows of the matrix hold.

    items: arrays or kernels, None for zeros.
    """

    def combination(row: np.ndarray) -> Any:
        # Factors of 0 and items of zeros are left out: nothing is computed for them.
        terms = [
            (float(factor), item)
            for factor, item in zip(row, items, strict=True)
            if factor and item is not None
        ]
        weighted_sum = lambda *leaves: sum(c * leaf for (c, _), leaf in zip(terms, leaves))
        return jax.tree.map(weighted_sum, *(item for _, item in terms))

    return [combination(row) for row in matrix]


def pad_items(items: list[Any], zeros: int) -> list[Any]:
    """The items with this many zeros (None) before and after them."""
    return [*[None] * zeros, *items, *[None] * zeros]


def tile_inputs(x: Array, axis: int, tile: int, size: int, tiles: int) -> list[Array]:
    """The inputs of every tile along an axis, for a kernel of `size` that keeps the length.

    tile: outputs per tile. Returns tile + size - 1 arrays, one per input of a tile, each of x's
    shape but for that axis, which has length `tiles`.
    """
    # The first tile starts `before` steps early; zeros after the end fill the last blocks.
    before = size // 2
    pad = [(0, 0)] * x.ndim
    pad[axis] = (before, (tiles + 1) * tile - before - x.shape[axis])
    x = jnp.pad(x, pad)
    # Neighbouring tiles share inputs: the first `tile` inputs lie in the tile's own block of
    # the axis, the last size - 1 in the next block.
    x = x.reshape(*x.shape[:axis], tiles + 1, tile, *x.shape[axis + 1 :])
    blocks = [lax.squeeze(part, [axis + 1]) for part in lax.split(x, (1,) * tile, axis=axis + 1)]
    first = [lax.slice_in_dim(part, 0, tiles, axis=axis) for part in blocks]
    last = [lax.slice_in_dim(part, 1, tiles + 1, axis=axis) for part in blocks[: size - 1]]
    return first + last


def kernel_at_points(kernel: Kernel, length: int) -> list[Kernel]:
    """A kernel [k, C, D] at the n points where x [B, length, C] is multiplied: n of [C, D]."""
    size = kernel.shape[0]
    if length == TILE and size > TILE:
        # The kernel is l in (1), by distance, and s is the steps backwards.
        distances = pad_items(taps(kernel)[::-1], (SINGLE_TILE_POINTS - size) // 2)
        return combine(interpolation(SINGLE_TILE_POINTS), distances)
    # The kernel is s in (1), and l is the inputs of a tile.
    return combine(evaluation(size, TILE + size - 1), taps(kernel))


def steps_at_points(x: Array, n: int) -> list[Array]:
    """x [B, L, C] at n points: n of [B tiles, C]."""
    tiles = x.shape[1] // TILE
    size = n - TILE + 1
    if tiles == 1:
        # A single tile has its steps as they are, zeros around them are left out.
        steps = [step[:, 0] for step in lax.split(x, (1,) * TILE, axis=1)]
        # Then the kernel is l in (1) (`kernel_at_points`), and the steps are s, backwards.
        if n == SINGLE_TILE_POINTS:
            return combine(evaluation(TILE, n), steps[::-1])
        return combine(interpolation(n), pad_items(steps, size // 2))
    inputs = combine(interpolation(n), tile_inputs(x, 1, TILE, size, tiles))
    return [as_matrix(part) for part in inputs]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def pointwise_products(rows: int, steps: list[Array], kernels: list[Kernel]) -> list[Array]:
    """Per point the steps [N, C] times the kernel [C, D]: n of [N, D].

    rows: how many of the N are not the zeros that `conv_tiles` appends.
    """
    # It has a JVP of its own for the sake of the backward pass. There the products that give
    # the gradients of steps come first in XLA's order, and the gradients at points stay in
    # memory until those of the kernels have read them. Otherwise XLA writes each result over an
    # array that has just been read, so that each product has to wait for the one before: a
    # chain for one thread, where two could work side by side. The small U-Net's training was
    # 1.05 times as fast with this order.
    del rows  # the tangents need it
    return list(map(dot, steps, kernels))


def pointwise_products_jvp(
    rows: int, primals: tuple, tangents: tuple
) -> tuple[list[Array], list[Array]]:
    """The JVP of `pointwise_products`: d(s k) = ds k + s dk, per point."""
    steps, kernels = primals
    d_steps, d_kernels = map(materialize, tangents)
    # The appended zeros stay out of the tangents, and so out of the gradients.
    d_steps = d_steps and [tangent[:rows] for tangent in d_steps]
    from_kernels = d_kernels and [dot(x[:rows], d) for x, d in zip(steps, d_kernels)]
    if d_steps and from_kernels:
        # Transposed, this barrier takes the gradients of steps and of products and waits for
        # both: this is the order described above.
        d_steps, from_kernels = lax.optimization_barrier((d_steps, from_kernels))
    # None where the tangents are zeros: no product with zeros is computed.
    from_steps = d_steps and list(map(dot, d_steps, kernels))
    terms = [each for each in (from_steps, from_kernels) if each]
    pad = ((0, len(steps[0]) - rows), (0, 0))
    # Back to N rows, with zeros for the appended ones.
    sums = [jnp.pad(sum(each[1:], each[0]), pad) for each in zip(*terms)]
    return pointwise_products(rows, *primals), sums


def materialize(tangents: list[Any]) -> list[Any] | None:
    """Tangents with arrays for symbolic zeros; None if all of them are zeros."""
    is_zero = lambda leaf: isinstance(leaf, jax.custom_derivatives.SymbolicZero)
    if all(map(is_zero, jax.tree.leaves(tangents))):
        return None
    as_array = lambda leaf: jnp.zeros(leaf.shape, leaf.dtype) if is_zero(leaf) else leaf
    return jax.tree.map(as_array, tangents)


pointwise_products.defjvp(pointwise_products_jvp, symbolic_zeros=True)


@jax.custom_jvp
def fence_gradient(y: Array) -> Array:
    """y; its gradient is computed once, not again in each sum at points that reads it."""
    return y


fence_gradient.defjvp(lambda primals, tangents: (*primals, lax.optimization_barrier(*tangents)))


def conv_tiles(x: Array, kernel: Kernel) -> Array:
    """`conv1d.conv` by (1), where it keeps the length L of x [B, L, C], a multiple of TILE."""
    batch, length, _ = x.shape
    # One more example of zeros makes one more row (SINGLE_THREAD_ROWS).
    is_just_below = batch * length == SINGLE_THREAD_ROWS * TILE
    x = jnp.pad(x, ((0, int(is_just_below)), (0, 0), (0, 0)))
    # Into values at points, times the kernel's there, and back into steps.
    kernels = kernel_at_points(kernel, length)
    n = len(kernels)
    values = pointwise_products(batch * length // TILE, steps_at_points(x, n), kernels)
    y = jnp.stack(combine(evaluation(TILE, n).T, values), axis=1)  # [B tiles, TILE, D]
    return fence_gradient(y.reshape(len(x), length, -1)[:batch])
