"""What the doctor says of numbers, and that it is silent where they are well."""

import inspect
from pathlib import Path

import pytest
from support import doctor_cases as cases

from dpjax.check import rules
from dpjax.check.rules import data


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_a_rule_signs_with_its_name_and_has_a_test(rule):
    assert f'"{rule.__name__}"' in inspect.getsource(rule)
    tests = [path.read_text() for path in Path(__file__).parent.glob("test_doctor_*.py")]
    module = rule.__module__.split(".")[-1]
    assert any(f"{module}.{rule.__name__}" in text for text in tests)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_well_is_given_no_warning(seed):
    made = cases.case(train=cases.walks(seed=seed), val=cases.walks(3, seed=seed + 9))
    assert [finding.rule for finding in rules.examine(made)] == ["meaning"]


def test_skipped_episodes_are_an_error_until_it_is_said_to_skip_them():
    made = cases.case(skipped=["file: episode 3, step 2, action[0]: got nan"])
    finding = cases.only(data.unreadable(made))
    assert finding.severity == "error" and "on_bad=skip" in finding.remedy
    assert "1 of 28 episodes" in finding.reason and "episode 3, step 2" in finding.reason
    made = made._replace(config=cases.config(data__on_bad="skip"))
    assert cases.only(data.unreadable(made)).severity == "warning"


def test_constant_dims_are_noted_and_a_constant_action_is_an_error():
    made = cases.spoiled(lambda e: e["state"].__setitem__((slice(None), 1), 7))
    finding = cases.only(data.constant(made))
    assert finding.severity == "note" and "state[1]" in finding.reason
    made = cases.spoiled(lambda e: e["action"].__setitem__(slice(None), 7))
    assert cases.only(data.constant(made)).severity == "error"


def test_a_dim_that_moves_only_in_held_out_episodes_is_named():
    made = cases.spoiled(lambda e: e["state"].__setitem__((slice(None), 1), 7))
    finding = cases.only(data.moves_later(made))
    assert "state[1]" in finding.reason
    still = cases.walks(3, seed=1)
    for episode in still:
        episode["state"][:, 1] = 7
    assert not data.moves_later(made._replace(val=cases.stack(still, ""), train=made.train))


def test_an_outlier_is_named_by_the_datas_own_number_of_the_episode():
    train = cases.walks()
    train[5]["action"][7, 1] = 1e6
    made = cases.case(train)
    made = made._replace(labels=[f"episode {e + 100}" for e in range(27)])
    finding = cases.only(data.outliers(made))
    assert "action[1] is 1e+06 at episode 105, step 7" in finding.reason
    assert finding.remedy.endswith("config.normalize.action=quantile")
    assert not data.heavy_tails(made)  # one line on one thing


def test_heavy_tails_are_named_where_limits_squeeze_them():
    train = cases.walks()
    train[0]["action"][4:6, 0] = 100  # of usually 7 or so from end to end
    finding = cases.only(data.heavy_tails(cases.case(train)))
    assert "action[0]" in finding.reason and "config.normalize.action=quantile" in finding.remedy
    given = cases.config(normalize__action="quantile")
    assert not data.heavy_tails(cases.case(train, given=given))


def test_quantile_that_takes_a_rare_grip_for_a_constant_is_named():
    train = cases.walks()
    for episode in train:
        episode["action"][:, 1] = 0
    train[0]["action"][3:6, 1] = 1
    quantile = cases.case(train, given=cases.config(normalize__action="quantile"))
    finding = cases.only(data.flattened(quantile))
    assert "action[1]" in finding.reason and finding.remedy == "config.normalize.action=limits"
    assert not data.flattened(cases.case(train))


def test_numbers_that_reach_the_network_in_the_hundreds_are_named():
    grow = lambda e: e["state"].__imul__(300)
    given = cases.config()
    given.normalize.per_key.state = "identity"
    finding = cases.only(data.beyond_units(cases.spoiled(grow, given=given)))
    assert "state[0-2]" in finding.reason and "'identity'" in finding.reason
    assert "config.normalize.per_key.state=limits" in finding.remedy
    assert not data.beyond_units(cases.spoiled(grow))


def test_a_gripper_is_noted_and_limits_are_right_for_it():
    close = lambda e: (
        e["action"].__setitem__((slice(20, None), 1), 1)
        or e["action"].__setitem__((slice(0, 20), 1), -1)
    )
    finding = cases.only(data.switches(cases.spoiled(close)))
    assert "-1, 1" in finding.reason and finding.remedy.startswith("nothing")
    made = cases.spoiled(close, given=cases.config(normalize__action="quantile"))
    assert "=limits" in cases.only(data.switches(made)).remedy
