"""What the check finds about actions with few values."""

import numpy as np
import pytest
from support import check_cases as cases

from dpjax.check.rules import grippers


def test_a_gripper_is_noted_and_limits_suits_it():
    def close(episode):
        episode["action"][:20, 1] = -1
        episode["action"][20:, 1] = 1

    finding = cases.only(grippers.binary_actions(cases.changed(close)))
    assert "-1, 1" in finding.reason and finding.remedy.startswith("nothing")
    config = cases.make_config(normalize__action="quantile")
    context = cases.changed(close, config=config)
    assert "=limits" in cases.only(grippers.binary_actions(context)).remedy


def gripper(values, places):
    """Episodes whose second action is 0 or 1, and `values` at `places` of episode 3."""
    train = cases.episodes()
    for episode in train:
        episode["action"][:, 1] = np.arange(40) // 20
    train[3]["action"][places, 1] = values
    return cases.context(train)


@pytest.mark.parametrize("values", [0.5, -1, [0.5, -1]])
def test_a_rare_third_value_of_a_gripper_is_named_with_its_step(values):
    finding = cases.only(grippers.rare_values(gripper(values, [7, 8])))
    assert finding.severity == "warning" and "action[1] is 0 or 1 at nearly" in finding.reason
    assert "at 2 steps, first episode 3, step 7" in finding.reason


def test_two_values_and_grippers_that_travel_are_no_finding():
    assert not grippers.rare_values(gripper(1, [7, 8]))
    # From open to closed through many values.
    assert not grippers.rare_values(gripper(np.linspace(0.1, 0.9, 9), np.arange(16, 25)))
    assert not grippers.rare_values(cases.context())

    def three(episode):
        episode["action"][:, 1] = np.arange(40) // 14 - 1  # a mode with three values, all usual

    assert not grippers.rare_values(cases.changed(three))

    def contacts(episode):
        episode["state"][:, 2] = np.arange(40) // 20
        episode["state"][5, 2] = 2

    assert not grippers.rare_values(cases.changed(contacts))
