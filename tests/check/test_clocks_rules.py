"""What the check finds about recorded times and rates."""

import numpy as np
import pytest
from support import check_cases as cases

from dpjax.check.rules import clocks


def test_an_observation_that_counts_the_steps_is_named():
    def count(episode):
        episode["state"][:, 2] = np.arange(40) * 0.1

    finding = cases.only(clocks.clock_observed(cases.changed(count)))
    assert "state[2]" in finding.reason and "0.1" in finding.reason
    assert not clocks.clock_observed(cases.context())


def test_a_chunk_of_moments_is_noted_if_the_rate_is_known():
    assert "0.16 s" in cases.only(clocks.short_chunks(cases.context(fps=50.0))).reason  # 8 steps
    assert not clocks.short_chunks(cases.context(fps=10.0))
    assert not clocks.short_chunks(cases.context())


def test_a_clock_of_another_rate_than_the_data_set_gives_is_named():
    context = cases.context(clocks={"t": cases.clock(np.arange(10) / 10, [10])}, fps=30.0)
    finding = cases.only(clocks.rate_mismatch(context))
    assert "t makes 10 steps per second" in finding.reason and "30" in finding.reason
    assert not clocks.rate_mismatch(context._replace(fps=10.0))
    assert not clocks.rate_mismatch(context._replace(fps=0.0))


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t, None),
        (lambda t: t + 0.5 * (np.arange(20) > 13), "gap of more than 1.5 times the usual 0.1"),
        (lambda t: t - 0.5 * (np.arange(20) == 13), "does not increase after 1 step"),
        (lambda t: 1.7e9 + t, "does not increase"),
    ],
)
def test_clocks_that_leave_gaps_or_stand_still_are_named(change, words):
    times = np.tile(np.arange(10) * 0.1, 2)
    clock = cases.clock(change(times), [10, 20])
    findings = clocks.irregular_clock(cases.context(clocks={"t": clock}))
    assert bool(findings) == bool(words)
    if words:
        assert any(words in finding.reason for finding in findings)
        assert "readable episode" in findings[0].reason


def test_sets_of_different_rates_are_an_error_that_names_the_lowest():
    context = cases.context(rates={"a": 10.0, "b": 30.0, "c": 0.0})
    finding = cases.only(clocks.mixed_rates(context))
    assert finding.severity == "error" and "a has 10, b has 30" in finding.reason
    assert "--to-fps=10" in finding.remedy and finding.changes == ("--to-fps=10",)
    # One rate, a rate that nobody knows, and 29.97 for 30.
    for rates in ({"a": 30.0, "b": 29.97}, {"a": 30.0, "b": 0.0}, {"a": 0.0}, {}):
        assert not clocks.mixed_rates(context._replace(rates=rates))
    # 15 and 10 steps per second have 5 in common.
    mixed = context._replace(rates={"a": 15.0, "b": 10.0})
    assert cases.only(clocks.mixed_rates(mixed)).changes == ("--to-fps=5",)
    odd = cases.only(clocks.mixed_rates(context._replace(rates={"a": 10.0, "b": 17.3})))
    assert not odd.changes and "no common one" in odd.remedy
