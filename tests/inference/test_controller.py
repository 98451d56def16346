"""The controller: which actions it executes, what it shows the policy, what a reset forgets."""

import jax
import numpy as np
import pytest

from dpjax.core.errors import UserError
from dpjax.inference.controller import Controller

TO, TA, TP = 2, 3, 6


def recording_policy():
    """A policy whose actions are 100 * (number of the call) + the predicted step; its calls."""
    calls = []

    def sample_actions(keys, obs, previous=None):
        calls.append((keys, obs, previous))
        steps = 100.0 * len(calls) + np.arange(TP, dtype=np.float32)
        return np.tile(steps[:, None], (len(keys), 1, 1))

    return sample_actions, calls


def started(sample_actions, batch=2, **horizon):
    controller = Controller(sample_actions, **{"observed": TO, "executed": TA, **horizon})
    controller.reset(jax.random.split(jax.random.key(0), batch))
    return controller


def observation(t, batch=2):
    return {"x": np.full((batch, 1), t, np.float32) + 1000 * np.arange(batch)[:, None]}


def test_actions_from_the_present_on_are_executed():
    sample_actions, calls = recording_policy()
    controller = started(sample_actions)
    actions = np.stack([controller.act(observation(t)) for t in range(2 * TA)])
    np.testing.assert_array_equal(actions[:, 0, 0], [101, 102, 103, 201, 202, 203])
    assert len(calls) == 2


def test_the_first_observation_is_repeated_and_then_pushed_out():
    sample_actions, calls = recording_policy()
    controller = started(sample_actions, observed=3, executed=2)
    for t in range(5):
        controller.act(observation(t))
    histories = [obs["x"][0, :, 0].tolist() for _, obs, _ in calls]
    assert histories == [[0, 0, 0], [0, 1, 2], [2, 3, 4]]


def test_a_reset_environment_has_an_empty_queue_and_the_others_keep_theirs():
    sample_actions, calls = recording_policy()
    controller = started(sample_actions)
    controller.act(observation(0))
    controller.reset(jax.random.split(jax.random.key(1), 1), indices=[1])
    actions = controller.act(observation(7))
    # Environment 0 goes on with its first chunk; 1 has a new one, from its new observation.
    np.testing.assert_array_equal(actions[:, 0], [102, 201])
    assert calls[1][1]["x"][1, :, 0].tolist() == [1007, 1007]
    np.testing.assert_array_equal(controller.act(observation(8))[:, 0], [103, 202])
    np.testing.assert_array_equal(controller.act(observation(9))[:, 0], [301, 203])


def test_previous_is_the_last_chunk_moved_to_the_present_and_nan_after_a_reset():
    sample_actions, calls = recording_policy()
    controller = started(sample_actions)
    for t in range(TA):
        controller.act(observation(t))
    controller.reset(jax.random.split(jax.random.key(1), 1), indices=[1])
    controller.act(observation(TA))
    assert calls[0][2] is None
    # TA steps were executed: step TA of the last chunk is step 0 of the next one.
    moved = [*(100 + np.arange(TA, TP)), *[np.nan] * TA]
    np.testing.assert_array_equal(calls[1][2][0, :, 0], moved)
    assert np.isnan(calls[1][2][1]).all()


def test_the_keys_of_an_environment_do_not_depend_on_the_others():
    def keys_of(indices, wanted):
        sample_actions, calls = recording_policy()
        controller = Controller(sample_actions, observed=TO, executed=TA)
        keys = jax.random.split(jax.random.key(0), 4)
        controller.reset(keys[np.array(indices)])
        for t in range(2 * TA):
            controller.act(observation(t, len(indices)))
        return [jax.random.key_data(keys)[wanted].tolist() for keys, _, _ in calls]

    alone = keys_of([2], 0)
    assert alone == keys_of([0, 1, 2, 3], 2)
    assert alone[0] != alone[1]


def test_a_single_environment_needs_no_batch_axis():
    sample_actions, _ = recording_policy()
    controller = Controller(sample_actions, observed=TO, executed=TA)
    controller.reset(jax.random.key(0))
    action = controller.act({"x": np.zeros(1, np.float32)})
    assert action.shape == (1,) and action[0] == 101


def test_a_chunk_too_short_is_refused():
    with pytest.raises(UserError, match=r"executed=6 does not fit.*= 7 steps.*Tp = 6") as error:
        started(recording_policy()[0], executed=6).act(observation(0))
    assert error.value.argument == "executed"


def test_actions_that_are_not_finite_are_refused_and_their_environments_named():
    def sample_actions(keys, obs, previous=None):
        chunk = np.zeros((len(keys), TP, 1), np.float32)
        chunk[1, -1] = np.nan
        return chunk

    with pytest.raises(UserError, match=r"environments \[1\] are not finite"):
        started(sample_actions).act(observation(0))


def test_wrong_shapes_are_refused_in_one_line():
    with pytest.raises(UserError, match=r"shape \[6, 1\]"):
        started(lambda keys, obs, previous: np.zeros((TP, 1))).act(observation(0))
    with pytest.raises(UserError, match="'x' is of 3 environments, .* with 2 keys"):
        started(recording_policy()[0]).act(observation(0, batch=3))
    with pytest.raises(UserError, match="before reset"):
        Controller(recording_policy()[0], observed=TO, executed=TA).act(observation(0))
    with pytest.raises(UserError, match="jax.random.key"):
        Controller(recording_policy()[0], observed=TO, executed=TA).reset(jax.random.PRNGKey(0))


def counting_policy(predicted=16):
    """A policy whose actions are 1000 * (number of the call) + the time that they belong to."""
    calls = []

    def sample_actions(keys, obs, previous=None, committed=None):
        calls.append((obs, previous, committed))
        present = np.asarray(obs["x"])[:, -1] % 1000  # [B, 1], the step of the environment
        times = present + np.arange(predicted, dtype=np.float32) - (TO - 1)
        return (1000.0 * len(calls) + times)[..., None]

    return sample_actions, calls


@pytest.mark.parametrize("delay", [0, 1, 2, 3])
def test_with_a_delay_every_action_belongs_to_its_own_step(delay):
    sample_actions, calls = counting_policy()
    controller = started(sample_actions, delay=delay)
    actions = np.stack([controller.act(observation(t)) for t in range(4 * TA)])
    # The action of step t is the one that some chunk holds for step t.
    want = np.broadcast_to(np.arange(4 * TA)[:, None], (4 * TA, 2))
    np.testing.assert_array_equal(actions[..., 0] % 1000, want)
    # Chunk n takes over in step n Ta, whatever the delay, and was sampled d steps before.
    np.testing.assert_array_equal(actions[:, 0, 0] // 1000, 1 + np.arange(4 * TA) // TA)
    sampled = [int(obs["x"][0, -1, 0]) for obs, *_ in calls]
    assert sampled[:4] == [0, *(n * TA - delay for n in range(1, 4))]


def test_what_is_committed_is_what_is_executed():
    sample_actions, calls = counting_policy()
    delay = 2
    controller = started(sample_actions, delay=delay)
    actions = np.stack([controller.act(observation(t)) for t in range(5 * TA)])[..., 0]
    assert calls[0][1] is None and calls[0][2].tolist() == [0, 0]
    for obs, previous, committed in calls[1:-1]:
        t = int(obs["x"][0, -1, 0])
        assert committed.tolist() == [delay, delay]
        # From the step before the present to the last committed step.
        known = previous[:, : TO - 1 + delay, 0]
        np.testing.assert_array_equal(known, actions[t - (TO - 1) : t + delay].T)


def test_a_reset_forgets_the_chunk_that_waits():
    sample_actions, calls = counting_policy()
    controller = started(sample_actions, delay=2)
    for t in range(2):  # the second chunk waits since step 1
        controller.act(observation(t))
    controller.reset(jax.random.split(jax.random.key(7), 1), indices=[1])
    actions = np.stack([controller.act(observation(t)) for t in range(2, 2 + TA)])
    # The new episode waits for a chunk of its own; the other one goes on.
    np.testing.assert_array_equal(actions[:, 0, 0] // 1000, [1, 2, 2])
    assert (actions[:, 1, 0] // 1000 == 3).all() and (calls[2][2] == [2, 0]).all()
    assert np.isnan(calls[2][1][1]).all()


def test_a_delay_longer_than_the_chunk_lasts_is_refused():
    with pytest.raises(UserError, match="delay=4 must be from 0 to executed=3"):
        Controller(counting_policy()[0], observed=TO, executed=TA, delay=4)
    controller = started(counting_policy(predicted=6)[0], delay=3)
    with pytest.raises(UserError, match=r"observed - 1 \+ delay=3 \+ executed = 7"):
        controller.act(observation(0))
