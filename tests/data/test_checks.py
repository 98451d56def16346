"""Bad demonstrations are named: episode, step, key, dimension."""

from pathlib import Path

import numpy as np
import pytest

from dpjax.core.errors import UserError
from dpjax.data import checks, rlds

SHAPES = {"state": (5,), "action": (2,)}


def episode(steps=20):
    return {key: np.ones((steps, *shape), np.float32) for key, shape in SHAPES.items()}


def test_a_good_episode_has_no_problems():
    assert checks.check_episode(episode(), SHAPES) == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_non_finite_number_is_named_by_step_and_dimension(value):
    bad = episode()
    bad["action"][17, 1] = value
    (line,) = checks.check_episode(bad, SHAPES)
    assert "step 17, action[1]" in line and "1 non-finite value" in line and str(value) in line


def test_non_finite_numbers_are_counted():
    bad = episode()
    bad["state"][3:5] = np.nan
    (line,) = checks.check_episode(bad, SHAPES)
    assert "step 3, state[0]" in line and "10 non-finite values" in line


def test_huge_but_finite_numbers_are_not_called_infinite():
    big = episode()
    big["state"][:] = 3e38  # their sum overflows
    assert checks.check_episode(big, SHAPES) == []


def test_a_number_may_be_named_in_a_matrix_and_in_a_scalar():
    matrix, scalar = np.ones((4, 9, 2), np.float32), np.ones(4, np.float32)
    matrix[2, 7, 1] = scalar[3] = np.nan
    lines = checks.check_episode({"m": matrix, "s": scalar}, {"m": (9, 2), "s": ()})
    assert "step 2, m[7, 1]" in lines[0] and "step 3, s:" in lines[1]


def test_shape_dtype_length_and_emptiness_are_named():
    bad = episode() | {"action": np.ones((20, 3), np.float32)}
    assert "action: expected shape (2,) per step, got (3,)" in checks.check_episode(bad, SHAPES)[0]
    bad = episode() | {"action": np.ones((20, 2), np.int64)}
    assert "action: expected float32 or images, got int64" in checks.check_episode(bad, SHAPES)[0]
    bad = episode() | {"action": np.ones((19, 2), np.float32)}
    assert "20 of state, 19 of action" in checks.check_episode(bad, SHAPES)[0]
    assert "empty" in checks.check_episode(episode(0), SHAPES)[0]


@pytest.mark.parametrize(
    "ends, words",
    [
        ([], "got 0"),
        ([5, 5, 20], "episode 1: expected an end after step 5, got 5"),
        ([0, 20], "episode 0"),
        ([5, 3, 20], "episode 1: expected an end after step 5, got 3"),
        ([5, 19], "last of 20 steps, got 19"),
        ([5, 21], "last of 20 steps, got 21"),
    ],
)
def test_ends_that_do_not_cut_the_steps_are_refused(ends, words):
    with pytest.raises(UserError) as caught:
        checks.check_columns(episode(20), np.array(ends, np.int64), "here")
    assert words in str(caught.value) and str(caught.value).startswith("here")


def test_flat_columns_name_the_episode_and_the_step_in_it():
    columns = episode(20)
    columns["action"][12, 0] = np.nan
    with pytest.raises(UserError, match=r"episode 1, step 7, action\[0\]"):
        checks.check_columns(columns, np.array([5, 20]), "here")
    checks.check_columns(episode(20), np.array([5, 20]), "here")


def test_an_outlier_is_named_with_episode_and_step():
    rng = np.random.default_rng(0)
    columns = {"action": rng.normal(size=(400, 2)), "flag": np.zeros((400, 1))}
    columns["flag"][7] = 1  # rare, but not an outlier: its usual range is empty
    ends = np.array([150, 400])
    assert checks.outliers(columns, ends) == []
    columns["action"][260, 1] = -1e6
    (outlier,) = checks.outliers(columns, ends)
    assert outlier[:5] == ("action", 1, 1, 110, -1e6) and outlier.count == 1
    line = outlier.describe("episode 1")
    assert "action[1] is -1e+06 at episode 1, step 110" in line and "(1 such value)" in line


def test_real_demonstrations_have_no_outliers():
    root = Path(__file__).parents[2] / "demonstrations" / "pusht"
    read = rlds.read(root, features={"state": "observation/state", "action": "action"})
    assert checks.outliers(read.columns, read.ends) == []
