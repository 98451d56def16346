"""Rotations: conversion between the forms that data uses and the form that a network learns.

The quaternions q and -q are the same rotation, and an axis-angle vector jumps at an angle of π.
A target that jumps while the robot moves smoothly is hard to predict. The first two rows of the
rotation matrix R are six numbers that change continuously with the rotation (Zhou et al. 2019,
sec. 3). The code of Chi et al. (2023) uses them too:

    rotation_6d = (R_00, R_01, R_02, R_10, R_11, R_12)                        (1)

Any six numbers (a, b) give a rotation, unless a = 0 or b is parallel to a. Its rows are

    r_0 = a / |a|,  r_1 = b' / |b'| with b' = b - (r_0 · b) r_0,  r_2 = r_0 × r_1    (2)

All functions take float arrays of numpy or of jax and return the same kind. They work on the
last axes; any number of leading axes is allowed.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

Array = Any  # np.ndarray or jax.Array


def _module(x: Array) -> ModuleType:
    """numpy for its own arrays, which keeps float64; otherwise jax.numpy."""
    return np if isinstance(x, np.ndarray) else jnp


def _unit(x: Array, floor: float = 1e-12) -> Array:
    """x [..., D] divided by its length, or by `floor` where that is larger."""
    xp = _module(x)
    return x / xp.maximum(xp.sqrt(xp.sum(x * x, -1, keepdims=True)), floor)


def from_wxyz(q: Array) -> Array:
    """Quaternion [..., 4], real part first, of any length except 0 -> matrix [..., 3, 3]."""
    xp = _module(q)
    # The standard formula for a unit quaternion, row by row.
    w, x, y, z = xp.moveaxis(_unit(q), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return xp.stack([xp.stack(row, -1) for row in rows], -2)


def to_wxyz(matrix: Array) -> Array:
    """Matrix [..., 3, 3] -> unit quaternion [..., 4], real part first and not negative.

    Every product q_i q_j is a linear function of the matrix (Shepperd 1978). Row i of the table
    of these products is q_i q, so each row with q_i ≠ 0, divided by its length, is q or -q. The
    row with the largest q_i² loses no digits in the division.
    """
    xp = _module(matrix)
    # 1. The entries of the matrix, each of shape [...].
    m = [[matrix[..., i, j] for j in range(3)] for i in range(3)]
    # 2. Differences of entries off the diagonal are 4 w (x, y, z). Their sums are 4 times the
    # products of x, y and z with each other.
    x = m[2][1] - m[1][2]
    y = m[0][2] - m[2][0]
    z = m[1][0] - m[0][1]
    xy = m[0][1] + m[1][0]
    xz = m[0][2] + m[2][0]
    yz = m[1][2] + m[2][1]
    # The entries on the diagonal give the squares.
    a = m[0][0]
    b = m[1][1]
    c = m[2][2]
    products = [  # 4 q_i q_j
        [1 + a + b + c, x, y, z],
        [x, 1 + a - b - c, xy, xz],
        [y, xy, 1 - a + b - c, yz],
        [z, xz, yz, 1 - a - b + c],
    ]
    # 3. Normalize the row whose entry on the diagonal of the table is largest.
    table = xp.stack([xp.stack(row, -1) for row in products], -2)  # [..., 4, 4]
    squares = xp.stack([row[i] for i, row in enumerate(products)], -1)  # [..., 4]
    best = xp.argmax(squares, -1)[..., None, None]
    q = _unit(xp.take_along_axis(table, best, -2)[..., 0, :])
    # 4. q and -q are the same rotation; of the two, return the one with w >= 0.
    return xp.where(q[..., :1] < 0, -q, q)


def from_axis_angle(v: Array) -> Array:
    """Axis times angle [..., 3] in rad -> matrix [..., 3, 3]."""
    xp = _module(v)
    # The quaternion is (cos h, axis sin h), with h half the angle.
    half = xp.sqrt(xp.sum(v * v, -1, keepdims=True)) / 2
    # sin(h) / 2h, and its limit 1/2 where h is nearly 0. Both branches of `where` are computed,
    # so the divisor must not be 0 in the unused one.
    scale = xp.where(half > 1e-6, xp.sin(half) / xp.maximum(2 * half, 1e-12), 0.5)
    return from_wxyz(xp.concatenate([xp.cos(half), v * scale], -1))


def to_axis_angle(matrix: Array) -> Array:
    """Matrix [..., 3, 3] -> axis times angle [..., 3] in rad, the angle from 0 to π."""
    xp = _module(matrix)
    q = to_wxyz(matrix)
    # arctan2 is accurate near 0 and near π, where arccos or arcsin would lose digits.
    sine = xp.sqrt(xp.sum(q[..., 1:] ** 2, -1, keepdims=True))
    angle = 2 * xp.arctan2(sine, q[..., :1])
    # angle / sin(angle / 2), and its limit 2 where the angle is nearly 0.
    scale = xp.where(sine > 1e-6, angle / xp.maximum(sine, 1e-12), 2.0)
    return q[..., 1:] * scale


def from_rotation_6d(x: Array) -> Array:
    """Equation (2): [..., 6] -> matrix [..., 3, 3]."""
    xp = _module(x)
    first = _unit(x[..., :3])
    second = x[..., 3:]
    # Gram-Schmidt: the part of b that is orthogonal to a.
    second = _unit(second - xp.sum(first * second, -1, keepdims=True) * first)
    return xp.stack([first, second, xp.cross(first, second)], -2)


def to_rotation_6d(matrix: Array) -> Array:
    """Equation (1): matrix [..., 3, 3] -> [..., 6]."""
    return matrix[..., :2, :].reshape(*matrix.shape[:-2], 6)


def from_xyzw(q: Array) -> Array:
    """Quaternion [..., 4], real part last -> matrix [..., 3, 3]."""
    return from_wxyz(_module(q).roll(q, 1, -1))  # (x, y, z, w) -> (w, x, y, z)


def to_xyzw(matrix: Array) -> Array:
    """Matrix [..., 3, 3] -> unit quaternion [..., 4], real part last and not negative."""
    q = to_wxyz(matrix)
    return _module(q).roll(q, -1, -1)  # (w, x, y, z) -> (x, y, z, w)


class Form(NamedTuple):
    """One way to write a rotation: its size and the functions to and from a matrix."""

    size: int
    to_matrix: Callable[[Array], Array]
    from_matrix: Callable[[Array], Array]


# The names of rotations in layouts (`policies.layouts`).
FORMS = {
    "quaternion_wxyz": Form(4, from_wxyz, to_wxyz),
    "quaternion_xyzw": Form(4, from_xyzw, to_xyzw),
    "axis_angle": Form(3, from_axis_angle, to_axis_angle),
    "rotation_6d": Form(6, from_rotation_6d, to_rotation_6d),
}


def convert(x: Array, source: str, target: str) -> Array:
    """Converts rotations [..., n] from the form `source` to the form `target`, names in FORMS."""
    # By way of the matrix, so that a form needs two functions and not one per other form.
    return FORMS[target].from_matrix(FORMS[source].to_matrix(x))
