"""What the check finds about values, and that good data have no findings."""

import inspect
from pathlib import Path

import pytest
from support import check_cases as cases

from dpjax.check import reference, rules
from dpjax.check.rules import data


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_a_rule_signs_with_its_name_and_is_documented_and_tested(rule):
    assert f'"{rule.__name__}"' in inspect.getsource(rule)
    assert "Remedy:" in rule.__doc__
    module = rule.__module__.split(".")[-1]
    tests = Path(__file__).with_name(f"test_{module}_rules.py").read_text()
    assert f"{module}.{rule.__name__}" in tests


def test_the_page_of_rules_is_complete():
    page = Path(__file__).parents[2] / "docs/check.md"
    assert page.read_text() == reference.markdown(), "see the last line of its head"


def test_every_rule_of_a_file_is_listed():
    for module in (getattr(rules, name) for name in rules.__dict__):
        if not inspect.ismodule(module) or not module.__name__.startswith(rules.__name__):
            continue
        for name, value in vars(module).items():
            returns = getattr(value, "__annotations__", {}).get("return")
            if returns == list[rules.Finding]:
                assert value in rules.RULES, f"{module.__name__}.{name}"


@pytest.mark.parametrize("seed", range(4))
def test_good_data_have_no_warnings(seed):
    episodes = cases.episodes(seed=seed)
    context = cases.context(train=episodes, val=cases.episodes(3, seed=seed + 9))
    findings = rules.check_data_and_config(context)
    assert [finding.rule for finding in findings] == ["action_type"]


def set_state(episode):
    """Makes one dim of the state constant."""
    episode["state"][:, 1] = 7


def test_bad_episodes_are_an_error_unless_the_config_skips_them():
    context = cases.context(skipped=["file: episode 3, step 2, action[0]: got nan"])
    finding = cases.only(data.bad_episodes(context))
    assert finding.severity == "error" and "on_bad=skip" in finding.remedy
    assert "1 of 28 episodes" in finding.reason and "episode 3, step 2" in finding.reason
    context = context._replace(config=cases.make_config(data__on_bad="skip"))
    assert cases.only(data.bad_episodes(context)).severity == "warning"


def test_constant_dims_are_noted_and_a_constant_action_is_an_error():
    finding = cases.only(data.constant_dims(cases.changed(set_state)))
    assert finding.severity == "note" and "state[1]" in finding.reason

    def set_action(episode):
        episode["action"][:] = 7

    assert cases.only(data.constant_dims(cases.changed(set_action))).severity == "error"


def test_a_dim_that_moves_only_in_held_out_episodes_is_named():
    context = cases.changed(set_state)
    finding = cases.only(data.constant_in_training(context))
    assert "state[1]" in finding.reason
    still = cases.episodes(3, seed=1)
    for episode in still:
        set_state(episode)
    assert not data.constant_in_training(context._replace(val=cases.stack(still, "")))


def test_an_outlier_is_named_by_its_episodes_label():
    train = cases.episodes()
    train[5]["action"][7, 1] = 1e6
    context = cases.context(train, labels=[f"episode {e + 100}" for e in range(27)])
    finding = cases.only(data.outliers(context))
    assert "action[1] is 1e+06 at episode 105, step 7" in finding.reason
    assert finding.remedy.startswith("repair the data, or convert the data again without them")
    assert not data.heavy_tails(context)  # one finding per problem


def test_heavy_tails_are_named_if_limits_squeezes_them():
    train = cases.episodes()
    train[0]["action"][4:6, 0] = 100  # the usual range is about 7
    finding = cases.only(data.heavy_tails(cases.context(train)))
    assert "action[0]" in finding.reason and "config.normalize.action=quantile" in finding.remedy
    config = cases.make_config(normalize__action="quantile")
    assert not data.heavy_tails(cases.context(train, config=config))


def test_a_rare_grip_that_quantile_takes_for_a_constant_is_named():
    train = cases.episodes()
    for episode in train:
        episode["action"][:, 1] = 0
    train[0]["action"][3:6, 1] = 1
    config = cases.make_config(normalize__action="quantile")
    finding = cases.only(data.flattened_by_quantile(cases.context(train, config=config)))
    assert "action[1]" in finding.reason
    assert finding.remedy == "set config.normalize.action=limits"
    assert not data.flattened_by_quantile(cases.context(train))


def test_large_inputs_of_the_network_are_named():
    def grow(episode):
        episode["state"] *= 300

    config = cases.make_config()
    config.normalize.per_key.state = "identity"
    finding = cases.only(data.large_inputs(cases.changed(grow, config=config)))
    assert "state[0-2]" in finding.reason and "'identity'" in finding.reason
    assert "config.normalize.per_key.state=limits" in finding.remedy
    assert not data.large_inputs(cases.changed(grow))


def test_a_dim_that_moves_little_is_a_warning_whose_key_decides_otherwise():
    def rest(episode):
        episode["state"][:, 1] = 7 + 1e-4 * episode["state"][:, 0]

    context = cases.changed(rest)
    finding = cases.only(data.little_motion(context))
    assert finding.severity == "warning" and "state[1]" in finding.reason
    (change,) = finding.changes
    assert change in finding.remedy and change.startswith("config.normalize.min_range=")
    config = cases.make_config(normalize__min_range=float(change.split("=")[1]))
    assert not data.little_motion(cases.changed(rest, config=config))
    assert not data.little_motion(cases.context())
