"""What the check finds about actions: their meaning, and what the sampler does to them."""

import numpy as np
from support import check_cases as cases

from dpjax.check.rules import actions


def test_actions_beyond_the_clip_are_counted():
    config = cases.make_config(normalize__action="gaussian")
    finding = cases.only(actions.clipped_actions(cases.context(config=config)))
    assert "config.sampler.clip=1 cuts off" in finding.reason
    assert "action[0-1]" in finding.reason
    assert "config.normalize.action=limits" in finding.remedy
    config.sampler.clip = float("inf")
    assert not actions.clipped_actions(cases.context(config=config))


def test_the_two_per_cent_that_quantile_leaves_out_are_not_a_finding():
    config = cases.make_config(normalize__action="quantile")
    assert not actions.clipped_actions(cases.context(config=config))
    config.normalize.quantile = 0.1
    finding = cases.only(actions.clipped_actions(cases.context(config=config)))
    assert "20.0%" in finding.reason


def test_an_observation_read_from_the_action_is_an_error():
    config = cases.make_config()
    config.data.columns.state = "action"
    finding = cases.only(actions.action_observed(cases.context(config=config)))
    assert finding.severity == "error" and "both 'action'" in finding.reason
    assert not actions.action_observed(cases.context())


def test_an_action_that_is_this_steps_state_is_a_warning_the_next_ones_a_note():
    def copy(episode):
        episode["action"][:] = episode["state"][:, :2]

    finding = cases.only(actions.copied_observation(cases.changed(copy)))
    assert finding.severity == "warning" and "stands still" in finding.reason

    def shift(episode):
        episode["action"][:-1] = episode["state"][1:, :2]

    finding = cases.only(actions.copied_observation(cases.changed(shift)))
    assert finding.severity == "note" and "next step" in finding.reason


def to_changes(episode):
    """Makes the action the change of the state."""
    change = np.diff(episode["state"][:, :2], axis=0, append=episode["state"][-1:, :2])
    episode["action"][:] = change * 5


def test_absolute_actions_and_deltas_are_told_apart_by_correlation():
    absolute = cases.only(actions.action_type(cases.context()))
    assert "absolute" in absolute.reason and "state[0]" in absolute.reason
    deltas = cases.only(actions.action_type(cases.changed(to_changes)))
    assert "deltas" in deltas.reason and "a change" in deltas.remedy


def test_noise_has_no_type():
    rng = np.random.default_rng(3)

    def shuffle(episode):
        episode["action"][:] = rng.normal(size=(40, 2))

    assert not actions.action_type(cases.changed(shuffle))


def test_deltas_must_not_be_made_relative_to_the_pose():
    config = cases.make_config()
    config.representation.relative = "state"
    config.representation.layouts = cases.ConfigDict(dict())
    # Relative actions need as many dims as the pose: three.
    episodes = cases.episodes()
    for episode in episodes:
        to_changes(episode)
        episode["action"] = np.concatenate([episode["action"], episode["action"][:, :1]], axis=1)
    context = cases.context(episodes, config=config, val=episodes[:1])
    _, warning = actions.action_type(context)
    assert warning.severity == "warning"
    assert warning.remedy == "set config.representation.relative=''"
    for episode in episodes:
        episode["action"] = episode["state"] + np.float32(0.1)
    context = cases.context(episodes, config=config)
    assert cases.only(actions.action_type(context)).severity == "note"


def resting(gap):
    """Episodes that rest for half of their steps, with commands `gap` away from the state."""
    rng = np.random.default_rng(5)

    def change(episode):
        episode["state"][20:] = episode["state"][20]
        episode["action"][20:] = episode["state"][20, :2] + gap
        episode["action"] += rng.normal(0, 1e-3, (40, 2)).astype(np.float32)

    return cases.changed(change)


def test_an_offset_between_leader_and_follower_at_rest_is_named():
    first, second = actions.leader_offset(resting(np.array([0.5, -0.5])))
    assert "action[0] differs from state[0] by +0.4" in first.reason
    assert "action[1] differs from state[1] by -0.4" in second.reason
    assert "calibrate" in first.remedy
    assert not actions.leader_offset(resting(np.zeros(2)))
