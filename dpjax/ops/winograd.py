"""Convolutions with fewer products than one a step and a tap, for CPUs.

Polynomials of m and k coefficients are multiplied by their values at n = m + k - 1 points
(Toom 1963, Cook 1966): a b = V⁻¹ ((V_m a) (V_k b)), V_m the first m columns of the points'
Vandermonde matrix V. Transposed that is a correlation with m outputs,

    y_i = Σ_j s_j l_(i + j),   y = V_mᵀ ((V_k s) (V⁻ᵀ l)),                         (1)

in n products instead of m k (Winograd 1980). Of s and l one are steps, [rows, C], the other
taps of a kernel, [C, D]; their products are matrix products, the sums around them cost little.
The points are small and of both signs, so that it rounds only 2 to 5 times as much as the sum
(`experiments/cpu`). Images take (1) down and along (`conv2d.by_tiles`), and round up to 10 times
as much.
"""

import functools
from typing import Any

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from dpjax.ops.transposed import Kernel, dot, flat, reaches, taps

Array = jax.Array

POINTS = np.array([0, 1, -1, 0.5, -2, 2, -0.5])  # and infinity, always the last
TILE = 4  # outputs of a tile: 8 products for the 20 of a kernel of 5, 6 for the 12 of one of 3
WHOLE = 2 * TILE - 1  # and 7 for the 20 where TILE steps are all there are
# XLA's CPU gives a product of this many rows and 256 x 256 floats to one thread, and up to nine
# of them together too: with one more row each is shared. 1.05 times as fast. Backwards there are
# twice as many, enough for both threads, and each is the faster for not being shared.
ALONE = 64
LEAST_TAP = 2**12  # floats a tap from which on fewer products are worth their sums


@functools.cache
def at_points(coefficients: int, n: int) -> np.ndarray:
    """V_m [n, m]: what m coefficients are worth at n points, at infinity the last of them."""
    finite = np.vander(POINTS[: n - 1], coefficients, increasing=True)
    return np.vstack([finite, np.eye(coefficients)[-1:]])


@functools.cache
def interpolation(n: int) -> np.ndarray:
    """V⁻ᵀ [n, n]: the points' Lagrange polynomials, infinity's is 0 at all the others."""
    finite = POINTS[: n - 1]
    others = [np.delete(finite, i) for i in range(n - 1)]
    rows = [np.poly(roots)[::-1] / np.prod(a - roots) for a, roots in zip(finite, others)]
    return np.vstack([np.pad(rows, ((0, 0), (0, 1))), np.poly(finite)[::-1]])


def pays(x: Array, kernel: Kernel, tiles: int, rows: int) -> bool:
    """Whether tiles of a batch make so many rows, of a kernel that is large enough for them.

    What has few bits keeps the plain way, which rounds less.
    """
    large = kernel.shape[-2] * kernel.shape[-1] >= LEAST_TAP
    return large and jnp.finfo(x.dtype).bits >= 32 and reaches(x.shape[0], -(-rows // tiles))


def combine(matrix: np.ndarray, items: list[Any]) -> list[Any]:
    """Each row's sum of the items (arrays or kernels, None is zeros) by its coefficients."""

    def total(row):
        counted = [(float(c), item) for c, item in zip(row, items, strict=True) if c]
        counted = [(c, item) for c, item in counted if item is not None]
        sum_of = lambda *leaves: sum(c * leaf for (c, _), leaf in zip(counted, leaves))
        return jax.tree.map(sum_of, *(item for _, item in counted))

    return [total(row) for row in matrix]


def around(items: list[Any], zeros: int) -> list[Any]:
    """The items with so many zeros before and after them."""
    return [*[None] * zeros, *items, *[None] * zeros]


def inputs_of_tiles(x: Array, axis: int, tile: int, size: int, tiles: int) -> list[Array]:
    """What tiles of so many outputs see along an axis under a kernel that keeps its length.

    tile + size - 1 arrays of x's shape, but of that axis, which has the tiles.
    """
    before = size // 2
    pad = [(0, 0)] * x.ndim
    pad[axis] = (before, (tiles + 1) * tile - before - x.shape[axis])
    x = jnp.pad(x, pad)
    x = x.reshape(*x.shape[:axis], tiles + 1, tile, *x.shape[axis + 1 :])
    each = [lax.squeeze(part, [axis + 1]) for part in lax.split(x, (1,) * tile, axis=axis + 1)]
    first = [lax.slice_in_dim(part, 0, tiles, axis=axis) for part in each]
    later = [lax.slice_in_dim(part, 1, tiles + 1, axis=axis) for part in each[: size - 1]]
    return first + later


def kernel_at_points(kernel: Kernel, length: int) -> list[Kernel]:
    """A kernel [k, C, D] at the points where x [B, length, C] is multiplied: n of [C, D].

    TILE steps alone have WHOLE distances, a tap each or zeros: there l in (1) is the kernel,
    and s the steps backwards. Else s is the kernel, and l the inputs of a tile.
    """
    size, each = kernel.shape[0], taps(kernel)
    if length == TILE and size > TILE:
        return combine(interpolation(WHOLE), around(each[::-1], (WHOLE - size) // 2))
    return combine(at_points(size, TILE + size - 1), each)


def steps_at_points(x: Array, n: int) -> list[Array]:
    """x [B, L, C] at n points: n of [B tiles, C]."""
    tiles, size = x.shape[1] // TILE, n - TILE + 1
    if tiles == 1:
        steps = [step[:, 0] for step in lax.split(x, (1,) * TILE, axis=1)]
        if n == WHOLE:
            return combine(at_points(TILE, n), steps[::-1])
        return combine(interpolation(n), around(steps, size // 2))
    return list(map(flat, combine(interpolation(n), inputs_of_tiles(x, 1, TILE, size, tiles))))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def products(rows: int, steps: list[Array], kernels: list[Kernel]) -> list[Array]:
    """Each point's steps [n, C], zeros after so many rows, times its kernel [C, D]: [n, D] each.

    Backwards those that give the gradients of steps come first in XLA's order, all of them, and
    keep the gradients at points that the kernels' need too. Else each was written where one
    that had just been read was, and so had to wait for it: a chain for one thread, of what two
    could make side by side. The small U-Net's training was 1.05 times as fast with the order.
    """
    del rows  # of the tangents
    return list(map(dot, steps, kernels))


def products_jvp(rows: int, primals: tuple, tangents: tuple) -> tuple[list[Array], list[Array]]:
    """Of `products`; backwards the barrier takes gradients of steps and of products, and waits."""
    steps, kernels = primals
    d_steps, d_kernels = map(moved, tangents)
    d_steps = d_steps and [d[:rows] for d in d_steps]
    of_kernels = d_kernels and [dot(x[:rows], d) for x, d in zip(steps, d_kernels)]
    if d_steps and of_kernels:
        d_steps, of_kernels = lax.optimization_barrier((d_steps, of_kernels))
    of_steps = d_steps and list(map(dot, d_steps, kernels))
    both = [each for each in (of_steps, of_kernels) if each]
    zeros = ((0, len(steps[0]) - rows), (0, 0))
    return products(rows, *primals), [jnp.pad(sum(each[1:], each[0]), zeros) for each in zip(*both)]


def moved(tangents: list[Any]) -> list[Any] | None:
    """Tangents, zeros among them as arrays; None where all are zeros."""
    is_zero = lambda leaf: isinstance(leaf, jax.custom_derivatives.SymbolicZero)
    if all(map(is_zero, jax.tree.leaves(tangents))):
        return None
    whole = lambda leaf: jnp.zeros(leaf.shape, leaf.dtype) if is_zero(leaf) else leaf
    return jax.tree.map(whole, tangents)


products.defjvp(products_jvp, symbolic_zeros=True)


@jax.custom_jvp
def fence_gradient(y: Array) -> Array:
    """y, whose gradient XLA makes once, not anew in each of the sums at points that read it."""
    return y


fence_gradient.defjvp(lambda primals, tangents: (*primals, lax.optimization_barrier(*tangents)))


def conv_tiles(x: Array, kernel: Kernel) -> Array:
    """`conv` that keeps the number of steps L of x [B, L, C], a multiple of TILE: (1)."""
    batch, length, _ = x.shape
    x = jnp.pad(x, ((0, int(batch * length == ALONE * TILE)), (0, 0), (0, 0)))
    kernels = kernel_at_points(kernel, length)
    n = len(kernels)
    made = products(batch * length // TILE, steps_at_points(x, n), kernels)
    y = jnp.stack(combine(at_points(TILE, n).T, made), axis=1)
    return fence_gradient(y.reshape(len(x), length, -1)[:batch])
