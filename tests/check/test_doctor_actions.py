"""What the doctor says an action is, and what becomes of it."""

import numpy as np
from support import doctor_cases as cases

from dpjax.check.rules import actions


def test_actions_that_the_clip_cuts_are_counted():
    given = cases.config(normalize__action="gaussian")
    finding = cases.only(actions.clipped(cases.case(given=given)))
    assert "config.sampler.clip=1 cuts" in finding.reason and "action[0-1]" in finding.reason
    assert "config.normalize.action=limits" in finding.remedy
    given.sampler.clip = float("inf")
    assert not actions.clipped(cases.case(given=given))


def test_quantiles_own_two_per_cent_are_no_finding():
    given = cases.config(normalize__action="quantile")
    assert not actions.clipped(cases.case(given=given))
    given.normalize.quantile = 0.1
    finding = cases.only(actions.clipped(cases.case(given=given)))
    assert "20.0%" in finding.reason


def test_an_observation_read_from_the_action_is_an_error():
    given = cases.config()
    given.data.columns.state = "action"
    finding = cases.only(actions.answer_observed(cases.case(given=given)))
    assert finding.severity == "error" and "both 'action'" in finding.reason
    assert not actions.answer_observed(cases.case())


def test_an_action_that_is_the_state_of_this_step_is_a_warning_of_the_next_a_note():
    copy = lambda e: e["action"].__setitem__(slice(None), e["state"][:, :2])
    finding = cases.only(actions.copies(cases.spoiled(copy)))
    assert finding.severity == "warning" and "stands still" in finding.reason

    shift = lambda e: e["action"].__setitem__(slice(0, -1), e["state"][1:, :2])
    finding = cases.only(actions.copies(cases.spoiled(shift)))
    assert finding.severity == "note" and "next step" in finding.reason


def test_places_and_changes_of_place_are_told_apart_by_correlation():
    places = cases.only(actions.meaning(cases.case()))
    assert "absolute" in places.reason and "state[0]" in places.reason
    changes = cases.only(actions.meaning(cases.spoiled(as_changes)))
    assert "deltas" in changes.reason and "a change of place" in changes.remedy


def as_changes(episode):
    """The action made the change of the state."""
    change = np.diff(episode["state"][:, :2], axis=0, append=episode["state"][-1:, :2])
    episode["action"][:] = change * 5


def test_of_noise_nothing_is_said():
    rng = np.random.default_rng(3)
    shuffle = lambda e: e["action"].__setitem__(slice(None), rng.normal(size=(40, 2)))
    assert not actions.meaning(cases.spoiled(shuffle))


def test_changes_are_not_to_be_taken_from_the_pose_again():
    given = cases.config()
    given.spaces.relative = "state"
    given.spaces.layouts = cases.ConfigDict(dict())
    wide = cases.walks()
    for episode in wide:
        as_changes(episode)
        episode["action"] = np.concatenate([episode["action"], episode["action"][:, :1]], axis=1)
    _, warning = actions.meaning(cases.case(wide, given=given, val=wide[:1]))
    assert warning.severity == "warning" and warning.remedy == "config.spaces.relative=''"
    for episode in wide:
        episode["action"] = episode["state"] + np.float32(0.1)
    assert cases.only(actions.meaning(cases.case(wide, given=given))).severity == "note"


def resting(gap):
    """Walks that rest for half of their steps, the command `gap` off where the robot is."""
    rng = np.random.default_rng(5)

    def change(episode):
        episode["state"][20:] = episode["state"][20]
        episode["action"][20:] = episode["state"][20, :2] + gap
        episode["action"] += rng.normal(0, 1e-3, (40, 2)).astype(np.float32)

    return cases.spoiled(change)


def test_a_leader_that_is_off_its_follower_at_rest_is_named():
    first, second = actions.offset(resting(np.array([0.5, -0.5])))
    assert "action[0] is +0.4" in first.reason and "action[1] is -0.4" in second.reason
    assert "calibrate" in first.remedy
    assert not actions.offset(resting(np.zeros(2)))
