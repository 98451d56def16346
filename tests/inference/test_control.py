"""The controller slices, remembers, asks and forgets as it says."""

import jax
import numpy as np
import pytest

from dpjax.core.errors import UserError
from dpjax.inference.controller import Controller

TO, TA, TP = 2, 3, 6


def recording_plan():
    """A plan whose action is 100 * (number of the call) + the predicted step, and its calls."""
    calls = []

    def plan(keys, obs, previous=None):
        calls.append((keys, obs, previous))
        steps = 100.0 * len(calls) + np.arange(TP, dtype=np.float32)
        return np.tile(steps[:, None], (len(keys), 1, 1))

    return plan, calls


def started(plan, rows=2, **horizon):
    controller = Controller(plan, **{"observed": TO, "executed": TA, **horizon})
    controller.reset(jax.random.split(jax.random.key(0), rows))
    return controller


def observation(t, rows=2):
    return {"x": np.full((rows, 1), t, np.float32) + 1000 * np.arange(rows)[:, None]}


def test_actions_from_the_present_on_are_executed():
    plan, calls = recording_plan()
    controller = started(plan)
    actions = np.stack([controller.act(observation(t)) for t in range(2 * TA)])
    np.testing.assert_array_equal(actions[:, 0, 0], [101, 102, 103, 201, 202, 203])
    assert len(calls) == 2


def test_the_first_observation_is_repeated_and_then_pushed_out():
    plan, calls = recording_plan()
    controller = started(plan, observed=3, executed=2)
    for t in range(5):
        controller.act(observation(t))
    histories = [obs["x"][0, :, 0].tolist() for _, obs, _ in calls]
    assert histories == [[0, 0, 0], [0, 1, 2], [2, 3, 4]]


def test_a_row_is_reset_alone_and_its_queue_is_empty():
    plan, calls = recording_plan()
    controller = started(plan)
    controller.act(observation(0))
    controller.reset(jax.random.split(jax.random.key(1), 1), rows=[1])
    actions = controller.act(observation(7))
    # Row 0 goes on with its first plan; row 1 has a new one, made from what it sees now.
    np.testing.assert_array_equal(actions[:, 0], [102, 201])
    assert calls[1][1]["x"][1, :, 0].tolist() == [1007, 1007]
    np.testing.assert_array_equal(controller.act(observation(8))[:, 0], [103, 202])
    np.testing.assert_array_equal(controller.act(observation(9))[:, 0], [301, 203])


def test_previous_is_the_last_chunk_moved_to_the_present_and_nan_after_a_reset():
    plan, calls = recording_plan()
    controller = started(plan)
    for t in range(TA):
        controller.act(observation(t))
    controller.reset(jax.random.split(jax.random.key(1), 1), rows=[1])
    controller.act(observation(TA))
    assert calls[0][2] is None
    # TA steps were executed: what was planned as step TA is step 0 of the next plan.
    moved = [*(100 + np.arange(TA, TP)), *[np.nan] * TA]
    np.testing.assert_array_equal(calls[1][2][0, :, 0], moved)
    assert np.isnan(calls[1][2][1]).all()


def test_a_rows_keys_do_not_depend_on_its_neighbours():
    def keys_of(rows, want):
        plan, calls = recording_plan()
        controller = Controller(plan, observed=TO, executed=TA)
        keys = jax.random.split(jax.random.key(0), 4)
        controller.reset(keys[np.array(rows)])
        for t in range(2 * TA):
            controller.act(observation(t, len(rows)))
        return [jax.random.key_data(keys)[want].tolist() for keys, _, _ in calls]

    alone, among = keys_of([2], 0), keys_of([0, 1, 2, 3], 2)
    assert alone == among
    assert alone[0] != alone[1]


def test_a_single_environment_needs_no_batch_axis():
    plan, _ = recording_plan()
    controller = Controller(plan, observed=TO, executed=TA)
    controller.reset(jax.random.key(0))
    action = controller.act({"x": np.zeros(1, np.float32)})
    assert action.shape == (1,) and action[0] == 101


def test_a_plan_too_short_is_refused():
    with pytest.raises(UserError, match=r"horizon.act=6 does not fit.*= 7 steps.*predict=6"):
        started(recording_plan()[0], executed=6).act(observation(0))


def test_a_plan_that_is_not_finite_is_refused_and_its_rows_named():
    def plan(keys, obs, previous=None):
        chunk = np.zeros((len(keys), TP, 1), np.float32)
        chunk[1, -1] = np.nan
        return chunk

    with pytest.raises(UserError, match=r"not finite in rows \[1\]"):
        started(plan).act(observation(0))


def test_wrong_shapes_are_refused_in_one_line():
    with pytest.raises(UserError, match=r"shape \[6, 1\]"):
        started(lambda keys, obs, previous: np.zeros((TP, 1))).act(observation(0))
    with pytest.raises(UserError, match="has 3 rows"):
        started(recording_plan()[0]).act(observation(0, rows=3))
    with pytest.raises(UserError, match="before reset"):
        Controller(recording_plan()[0], observed=TO, executed=TA).act(observation(0))
    with pytest.raises(UserError, match="jax.random.key"):
        Controller(recording_plan()[0], observed=TO, executed=TA).reset(jax.random.PRNGKey(0))
