"""Limits: fitted within episodes, and checked in the order finite, range, step."""

import json

import numpy as np
import pytest

from dpjax.core.errors import UserError
from dpjax.data import episodes
from dpjax.robot import limits
from dpjax.robot.limits import Limits

LIMITS = Limits(np.array([0.0, -1.0]), np.array([10.0, 1.0]), np.array([1.0, 0.1]), {})


def test_steps_between_episodes_do_not_count():
    # Two episodes that move by 1 and 0.5 per step; between them lie 100.
    first = np.stack([np.arange(10.0), np.zeros(10)], 1)
    second = np.stack([100 + 0.5 * np.arange(10.0), np.ones(10)], 1)
    data = episodes.stack(
        [{"state": 2 * x[:, :1], "action": x.astype(np.float32)} for x in (first, second)], "made"
    )
    fitted = limits.fit(data)
    np.testing.assert_array_equal(fitted.low, [0, 0])
    np.testing.assert_array_equal(fitted.high, [104.5, 1])
    np.testing.assert_array_equal(fitted.step, [1, 0])
    np.testing.assert_array_equal(fitted.observations["state"], [[0], [209]])
    again = limits.from_json(json.loads(json.dumps(limits.to_json(fitted))))
    for name in ("low", "high", "step"):
        np.testing.assert_array_equal(getattr(again, name), getattr(fitted, name))


def test_one_jump_in_a_thousand_steps_is_not_the_limit():
    x = np.arange(3000.0)[:, None] + 500 * (np.arange(3000)[:, None] >= 1500)
    assert limits.fit(episodes.stack([{"action": x}], "made")).step == 1


def test_what_was_demonstrated_passes_unchanged():
    actions = np.array([[0.0, 0.0], [1.0, 0.1], [2.0, 0.0]])
    checked = limits.check(LIMITS, actions, np.array([1.0, 0.1]))
    assert not checked.problems
    np.testing.assert_array_equal(checked.actions, actions)


@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_is_refused_even_where_limits_clamp(value, clamp):
    actions = np.array([[1.0, 0.0], [1.0, value]])
    for given in (LIMITS, None):
        checked = limits.check(given, actions, None, clamp=clamp)
        assert checked.actions is None
        assert "action[1]" in checked.problems[0] and "step 1" in checked.problems[0]


def test_beyond_the_range_and_too_far_a_step():
    actions = np.array([[10.5, 0.0], [10.6, 0.0], [1.0, 0.5]])
    checked = limits.check(LIMITS, actions, None)
    assert checked.actions is None and len(checked.problems) == 2
    assert "1 numbers are beyond the demonstrated range" in checked.problems[0]
    assert "2 numbers are further" in checked.problems[1]
    clamped = limits.check(LIMITS, actions, None, clamp=True).actions
    # Twice the demonstrated step, and 5 % beyond the range.
    np.testing.assert_allclose(clamped, [[10.5, 0.0], [10.5, 0.0], [8.5, 0.2]])


def test_the_first_step_is_measured_from_what_was_sent_last():
    actions = np.array([[5.0, 0.0]])
    assert limits.check(LIMITS, actions, np.array([4.0, 0.0])).actions is not None
    assert limits.check(LIMITS, actions, np.array([1.0, 0.0])).actions is None


def test_a_constant_action_may_have_rounding_errors():
    constant = Limits(np.array([0.3]), np.array([0.3]), np.array([0.0]), {})
    assert (
        limits.check(constant, np.array([[np.float32(0.3)]]), np.array([0.3])).actions is not None
    )
    assert limits.check(constant, np.array([[0.301]]), np.array([0.3])).actions is None


def test_limits_of_another_robot():
    with pytest.raises(UserError, match="2 action dims for a policy with 7"):
        limits.require_sizes(LIMITS, 7)
