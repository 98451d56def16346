"""What the check finds about dummies in the first and last step."""

import numpy as np
import pytest
from support import check_cases as cases

from dpjax.check.rules import edges, motion


def with_step(step, value, *, key="action", share=1.0):
    """Episodes far from 0 in which `value` fills one step of a column, in a share of them."""
    train = cases.episodes()
    for i, episode in enumerate(train):
        for x in episode.values():
            x += 20
        if i < share * len(train):
            episode[key][step] = value if value is not None else episode[key][step - 1]
    return cases.context(train)


@pytest.mark.parametrize("step, where", [(0, "first"), (-1, "last")])
@pytest.mark.parametrize("value, words", [(0.0, "(zeros)"), (-99, "(always [-99, -99])")])
@pytest.mark.parametrize("share, number", [(1.0, 24), (0.5, 12)])
def test_a_filler_in_the_first_or_last_step_is_counted(step, where, value, words, share, number):
    context = with_step(step, value, share=share)
    finding = cases.only(edges.dummy_steps(context))
    assert finding.severity == "warning" and words in finding.reason
    assert f"of the {where} step" in finding.reason
    assert f"{number} of 24 episodes" in finding.reason
    assert not motion.action_jumps(context)  # reported once


def test_a_dummy_observation_is_named_too():
    finding = cases.only(edges.dummy_steps(with_step(0, 0.0, key="state")))
    assert "state[0-2] of the first step" in finding.reason


def test_fillers_that_differ_are_shown_by_an_example():
    train = cases.episodes()
    rng = np.random.default_rng(0)
    for episode in train:
        episode["action"][-1] = rng.normal(80, 5, 2)
    assert "such as [8" in cases.only(edges.dummy_steps(cases.context(train))).reason


def test_repeated_targets_and_changes_of_zero_are_no_dummies():
    assert not edges.dummy_steps(cases.context())
    assert not edges.dummy_steps(with_step(-1, None))

    def to_changes(episode):
        change = np.diff(episode["state"][:, :2], axis=0)
        episode["action"][:] = np.concatenate([change, np.zeros((1, 2))])

    assert not edges.dummy_steps(cases.changed(to_changes))


def test_one_bad_step_is_a_jump_and_no_dummy():
    train = cases.episodes()
    train[3]["action"][-1] = 50
    context = cases.context(train)
    assert not edges.dummy_steps(context)
    assert "episode 3, step 38" in cases.only(motion.action_jumps(context)).reason
