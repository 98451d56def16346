"""Rotations: closed forms, scipy's numbers, and every form there and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dpjax.core import rotations


@pytest.fixture(scope="module")
def known():
    """Rotations by scipy: random ones and edge cases (none, half turns, tiny angles)."""
    half = np.pi * np.concatenate([np.eye(3), -np.eye(3), [[0.6, 0.8, 0.0]]])
    tiny = np.concatenate([1e-9 * np.eye(3), 1e-5 * np.ones((1, 3))])
    corners = Rotation.from_rotvec(np.concatenate([np.zeros((1, 3)), half, tiny]))
    return Rotation.concatenate([Rotation.random(300, random_state=0), corners])


@pytest.mark.parametrize("form", rotations.FORMS)
def test_there_and_back_is_the_same_rotation(form, known):
    convert = rotations.FORMS[form]
    matrix = known.as_matrix()
    there = convert.from_matrix(matrix)
    np.testing.assert_allclose(convert.to_matrix(there), matrix, atol=1e-9)


def test_quaternions_and_axis_angles_are_scipys(known):
    matrix = known.as_matrix()
    np.testing.assert_allclose(rotations.from_xyzw(known.as_quat()), matrix, atol=1e-12)
    np.testing.assert_allclose(rotations.from_axis_angle(known.as_rotvec()), matrix, atol=1e-9)
    q = rotations.to_xyzw(matrix)
    want = known.as_quat(canonical=True)
    np.testing.assert_allclose(np.abs((q * want).sum(-1)), 1, atol=1e-12)
    assert (q[..., 3] >= 0).all()
    angles = np.linalg.norm(rotations.to_axis_angle(matrix), axis=-1)
    np.testing.assert_allclose(angles, known.magnitude(), atol=1e-7)


def test_six_numbers_are_the_first_two_rows(known):
    matrix = known.as_matrix()
    six = rotations.to_rotation_6d(matrix)
    np.testing.assert_array_equal(six[..., :3], matrix[..., 0, :])
    np.testing.assert_array_equal(six[..., 3:], matrix[..., 1, :])


def test_any_six_numbers_make_a_rotation():
    x = np.random.default_rng(0).normal(size=(100, 6)) * 5
    matrix = rotations.from_rotation_6d(x)
    np.testing.assert_allclose(matrix @ matrix.swapaxes(-1, -2), np.eye(3) + 0 * matrix, atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(matrix), 1)


def test_length_and_sign_of_a_quaternion_do_not_matter():
    q = np.random.default_rng(1).normal(size=(10, 4))
    for other in (-q, 3 * q):
        np.testing.assert_allclose(rotations.from_wxyz(other), rotations.from_wxyz(q), atol=1e-12)


@pytest.mark.parametrize("form", rotations.FORMS)
def test_jax_computes_what_numpy_computes(form, known):
    matrix = known.as_matrix().astype(np.float32)
    there = rotations.FORMS[form].from_matrix(matrix)
    jitted = jax.jit(rotations.convert, static_argnums=(1, 2))
    back = jitted(jnp.asarray(there), form, "rotation_6d")
    np.testing.assert_allclose(back, rotations.convert(there, form, "rotation_6d"), atol=2e-6)
    np.testing.assert_allclose(back, matrix[..., :2, :].reshape(-1, 6), atol=1e-3)
