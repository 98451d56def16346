"""Rotations in the forms that data has and the one that a network learns.

A quaternion q and -q are one rotation and an axis-angle jumps at π: what jumps where the
robot does not can't be predicted well. Two rows of the matrix are a continuous form (Zhou
et al. 2019, sec. 3), six numbers, and what the paper's code learns:

    rotation_6d = (R_00, R_01, R_02, R_10, R_11, R_12)                        (1)
    r_0 = a / |a|,  r_1 = b' / |b'| with b' = b - (r_0 · b) r_0,  r_2 = r_0 × r_1    (2)

(2) makes a rotation of any six numbers (a, b) but a = 0 or b parallel to a. Arrays are numpy's
or jax's, float, and stay what they are; leading axes are free.
"""

import jax.numpy as jnp
import numpy as np


def _of(x):
    return np if isinstance(x, np.ndarray) else jnp


def _unit(x, floor: float = 1e-12):
    xp = _of(x)
    return x / xp.maximum(xp.sqrt(xp.sum(x * x, -1, keepdims=True)), floor)


def from_wxyz(q):
    """Quaternion [..., 4], the real part first, of any length but 0 -> matrix [..., 3, 3]."""
    xp = _of(q)
    w, x, y, z = xp.moveaxis(_unit(q), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return xp.stack([xp.stack(row, -1) for row in rows], -2)


def to_wxyz(matrix):
    """Matrix [..., 3, 3] -> the unit quaternion [..., 4] with a real part of 0 or more.

    q_i q_j for all i, j are linear in the matrix (Shepperd 1978): the row with the largest
    q_i², divided by its length, loses no digits.
    """
    xp = _of(matrix)
    m = [[matrix[..., i, j] for j in range(3)] for i in range(3)]
    x, y, z = m[2][1] - m[1][2], m[0][2] - m[2][0], m[1][0] - m[0][1]
    xy, xz, yz = m[0][1] + m[1][0], m[0][2] + m[2][0], m[1][2] + m[2][1]
    a, b, c = m[0][0], m[1][1], m[2][2]
    four = [  # 4 q_i q_j
        [1 + a + b + c, x, y, z],
        [x, 1 + a - b - c, xy, xz],
        [y, xy, 1 - a + b - c, yz],
        [z, xz, yz, 1 - a - b + c],
    ]
    table = xp.stack([xp.stack(row, -1) for row in four], -2)  # [..., 4, 4]
    squares = xp.stack([row[i] for i, row in enumerate(four)], -1)
    best = xp.argmax(squares, -1)[..., None, None]
    q = _unit(xp.take_along_axis(table, best, -2)[..., 0, :])
    return xp.where(q[..., :1] < 0, -q, q)


def from_axis_angle(v):
    """Axis times angle [..., 3], rad -> matrix [..., 3, 3]."""
    xp = _of(v)
    half = xp.sqrt(xp.sum(v * v, -1, keepdims=True)) / 2
    # sin(h) / 2h, which goes to 1/2.
    scale = xp.where(half > 1e-6, xp.sin(half) / xp.maximum(2 * half, 1e-12), 0.5)
    return from_wxyz(xp.concatenate([xp.cos(half), v * scale], -1))


def to_axis_angle(matrix):
    """Matrix [..., 3, 3] -> axis times angle [..., 3], rad, the angle from 0 to π."""
    xp = _of(matrix)
    q = to_wxyz(matrix)
    sine = xp.sqrt(xp.sum(q[..., 1:] ** 2, -1, keepdims=True))
    angle = 2 * xp.arctan2(sine, q[..., :1])
    scale = xp.where(sine > 1e-6, angle / xp.maximum(sine, 1e-12), 2.0)
    return q[..., 1:] * scale


def from_rotation_6d(x):
    """Equation (2): [..., 6] -> matrix [..., 3, 3]."""
    xp = _of(x)
    first = _unit(x[..., :3])
    second = x[..., 3:]
    second = _unit(second - xp.sum(first * second, -1, keepdims=True) * first)
    return xp.stack([first, second, xp.cross(first, second)], -2)


def to_rotation_6d(matrix):
    """Equation (1): matrix [..., 3, 3] -> [..., 6]."""
    return matrix[..., :2, :].reshape(*matrix.shape[:-2], 6)


def from_xyzw(q):
    """Quaternion [..., 4], the real part last -> matrix [..., 3, 3]."""
    return from_wxyz(_of(q).roll(q, 1, -1))


def to_xyzw(matrix):
    """As `to_wxyz`, the real part last."""
    q = to_wxyz(matrix)
    return _of(q).roll(q, -1, -1)


# {form: (how many numbers, to a matrix, from a matrix)}
FORMS = {
    "quaternion_wxyz": (4, from_wxyz, to_wxyz),
    "quaternion_xyzw": (4, from_xyzw, to_xyzw),
    "axis_angle": (3, from_axis_angle, to_axis_angle),
    "rotation_6d": (6, from_rotation_6d, to_rotation_6d),
}


def convert(x, source: str, to: str):
    """[..., n] from one form of FORMS to another."""
    return FORMS[to][2](FORMS[source][1](x))
