"""What the check finds about lag, and about the future as an observation."""

import numpy as np
import pytest
from support import check_cases as cases

from dpjax.check.rules import lag


def paths(shift, kind, noise=0.02, seed=0):
    """Episodes whose action of step t is the state of step t + shift, or the change to it."""
    rng = np.random.default_rng(seed)
    train = []
    for _ in range(cases.TRAIN):
        # Smooth paths, longer than the episode at both ends.
        walk = rng.normal(0, 0.2, (60, 3)).cumsum(0) + rng.uniform(0, 6, 3)
        path = np.cos(walk).cumsum(0) * 0.1 + rng.normal(0, 1, 3)
        t = np.arange(10, 10 + cases.STEPS)
        action = path[t + shift] if kind == "value" else path[t + shift] - path[t + shift - 1]
        action = action + noise * action.std(0) * rng.normal(size=action.shape)
        train.append({"state": path[t].astype("f4"), "action": action.astype("f4")})
    return cases.context(train)


@pytest.mark.parametrize("kind", ["value", "change"])
@pytest.mark.parametrize("shift", lag.SHIFTS)
def test_the_shift_between_state_and_action_is_named(kind, shift):
    findings = lag.state_lag(paths(shift, kind))
    if shift == 1:
        assert not findings
        return
    finding = cases.only(findings)
    assert finding.severity == ("warning" if shift < 1 else "note")
    assert f"step t{shift:+d} (" in finding.reason and "action[0-2]" in finding.reason
    if shift < 1:
        late = "1 step late" if shift == 0 else f"{1 - shift} steps late"
        assert late in finding.reason and f"--shift-actions {1 - shift}" in finding.remedy


def test_the_shift_does_not_depend_on_units_and_offsets():
    context = paths(0, "value")
    columns = {**context.train.columns, "action": context.action * 1000 + 5}
    scaled = context._replace(train=context.train._replace(columns=columns))
    assert "step t+0" in cases.only(lag.state_lag(scaled)).reason


def test_actions_without_any_relation_have_no_lag():
    rng = np.random.default_rng(3)

    def shuffle(episode):
        episode["action"][:] = rng.normal(size=(40, 2))

    assert not lag.state_lag(cases.changed(shuffle))
    assert not lag.state_lag(cases.context())
    assert not lag.state_lag(cases.context(cases.episodes(2)))


def with_column(make, **changes):
    """The context of episodes with one more observation, `make(episode)` [T, D]."""
    train = [
        {"state": x["state"], "extra": make(x).astype("f4"), "action": x["action"]}
        for x in cases.episodes()
    ]
    config = cases.make_config(**changes)
    config.data.columns.extra = "observation/extra"
    return cases.context(train, val=train[:2], config=config)


def last_state(episode):
    """The last state, in every step."""
    return np.repeat(episode["state"][-1:], len(episode["state"]), 0)


@pytest.mark.parametrize(
    "make, words",
    [
        (last_state, "extra[0-2] is in every step what state is at the end of the episode"),
        (lambda x: last_state(x)[:, 1:2], "extra[0] is in every step what state is"),
        (lambda x: np.roll(x["action"], -2, 0), "is action[0] of step t+2"),
        (lambda x: np.roll(x["state"], -1, 0), "is state[0] of step t+1"),
    ],
)
def test_the_future_as_an_observation_is_named(make, words):
    context = with_column(make)
    finding = cases.only(lag.future_observed(context))
    assert finding.severity == "warning" and words in finding.reason
    assert "config.data.columns" in finding.remedy
    (change,) = finding.changes
    assert "extra" not in change and "observation/state" in change


@pytest.mark.parametrize(
    "make",
    [
        lambda x: np.roll(x["action"], 1, 0),  # the last action is known
        lambda x: np.repeat(x["state"][:1], 40, 0),  # where the episode began
        lambda x: last_state(x) + 0.05,  # a goal that the robot does not reach exactly
        lambda x: np.ones((40, 3)),
        lambda x: x["state"],
    ],
)
def test_what_a_robot_knows_is_no_future(make):
    assert not lag.future_observed(with_column(make))


def test_a_goal_that_the_config_asks_for_is_meant():
    context = with_column(last_state)
    context.config.data.goals = cases.ConfigDict(dict(extra="state"))
    assert not lag.future_observed(context)
