"""Samples with times of their own, on the grid of the policy's steps."""

import numpy as np
import pytest

from dpjax.core import rotations
from dpjax.core.errors import UserError
from dpjax.policies import layouts
from dpjax.robot import timeline
from dpjax.robot.timeline import Column, Stale


def test_numbers_are_interpolated_and_held_at_both_ends():
    samples = {"x": (np.array([1.0, 2.0, 4.0]), np.array([[10.0], [20.0], [0.0]], np.float32))}
    got = timeline.history(samples, {"x": Column()}, np.array([0.5, 1.5, 3.0, 4.2]))["x"]
    np.testing.assert_allclose(got, [[10], [15], [10], [0]])
    assert got.dtype == np.float32


def test_a_sample_at_a_grid_time_is_exact():
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    at = np.arange(5) / 10
    got = timeline.history({"x": (at, x)}, {"x": Column()}, at)["x"]
    np.testing.assert_array_equal(got, x)


def test_images_are_the_newest_that_is_not_from_the_future():
    frames = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    samples = {"top": (np.array([0.0, 0.1, 0.2, 0.3]), frames)}
    grid = np.array([0.05, 0.199, 0.29])
    column = {"top": Column(is_image=True)}
    got = timeline.history(samples, column, grid)["top"][:, 0, 0, 0]
    np.testing.assert_array_equal(got, [0, 1, 2])
    # A camera that is read a few milliseconds after the step began belongs to that step.
    got = timeline.history(samples, column, grid, tolerance=0.02)["top"][:, 0, 0, 0]
    np.testing.assert_array_equal(got, [0, 2, 3])


@pytest.mark.parametrize("form", [*rotations.FORMS])
def test_rotations_turn_along_the_shortest_arc(form):
    angles = np.array([0.0, 0.3, 1.0])
    vectors = angles[:, None] * np.array([[0.6, 0.0, 0.8]])
    values = rotations.convert(vectors, "axis_angle", form)
    values = np.concatenate([angles[:, None], values], axis=1)
    column = Column(layouts.parse("pose", f"1 {form}"))
    got = timeline.history({"pose": (angles, values)}, {"pose": column}, np.array([0.1, 0.7]))
    np.testing.assert_allclose(got["pose"][:, 0], [0.1, 0.7])
    back = rotations.convert(got["pose"][:, 1:], form, "axis_angle")
    np.testing.assert_allclose(np.linalg.norm(back, axis=1), [0.1, 0.7], atol=1e-6)


def test_quaternions_of_opposite_signs_are_the_same_rotation():
    q = rotations.convert(
        np.array([[0.0, 0.0, 0.2], [0.0, 0.0, 0.4]]), "axis_angle", "quaternion_wxyz"
    )
    q[1] *= -1
    column = Column(layouts.parse("q", "quaternion_wxyz"))
    got = timeline.history({"q": (np.array([0.0, 1.0]), q)}, {"q": column}, np.array([0.5]))["q"]
    np.testing.assert_allclose(
        rotations.to_axis_angle(rotations.from_wxyz(got)), [[0, 0, 0.3]], atol=1e-9
    )


def test_a_sensor_that_is_too_old_is_named_with_its_age():
    samples = {"x": (np.array([1.0]), np.zeros((1, 1)))}
    with pytest.raises(Stale, match="'x': its newest sample is 0.700 s old") as caught:
        timeline.history(samples, {"x": Column(max_age=0.5)}, np.array([1.6, 1.7]))
    assert caught.value.age == pytest.approx(0.7)


def test_the_newest_step_never_shows_its_future():
    samples = {"x": (np.array([1.0]), np.zeros((1, 1)))}
    with pytest.raises(Stale, match="inf"):
        timeline.history(samples, {"x": Column()}, np.array([0.8, 0.9]))
    with pytest.raises(Stale):
        timeline.history({}, {"x": Column()}, np.array([0.9]))


def test_append_keeps_what_the_grid_needs():
    kept = None
    for t in range(10):
        new = (np.array([t - 1.0, t]), np.array([[t - 1.0], [t]]))  # each sample comes twice
        kept = timeline.append(kept, new, "x", since=t - 2.5)
    np.testing.assert_array_equal(kept[0], [6, 7, 8, 9])
    np.testing.assert_array_equal(kept[1][:, 0], kept[0])


@pytest.mark.parametrize("times", [[1.0, 0.5], [0.0, np.nan], [[0.0, 1.0]]])
def test_times_that_do_not_ascend_are_refused(times):
    with pytest.raises(UserError, match="'x'"):
        timeline.append(None, (np.array(times), np.zeros((2, 1))), "x", since=0.0)
