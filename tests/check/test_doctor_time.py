"""What the doctor says of lengths, of waiting, and of clocks."""

import re

import numpy as np
import pytest
from support import doctor_cases as cases

from dpjax.check.rules import time


def test_episodes_shorter_than_a_window_are_counted_and_named():
    train = cases.walks()
    train[2] = cases.walks(1, length=3)[0]
    finding = cases.only(time.short(cases.case(train)))
    assert "1 of 24" in finding.reason and "episode 2" in finding.reason
    train[2] = cases.walks(1, length=4)[0]  # To - 1 + Ta - 1 of 8 steps may be copies
    assert not time.short(cases.case(train))


def test_windows_that_are_mostly_copies_are_named_unless_they_are_masked():
    made = cases.case(cases.walks(length=6))
    assert made.padding > time.MANY_COPIES
    finding = cases.only(time.padded(made))
    assert "mask_padding=True" in finding.remedy
    given = cases.config(loss__mask_padding=True)
    assert not time.padded(cases.case(cases.walks(length=6), given=given))


def test_an_episode_far_longer_than_the_others_is_noted():
    train = cases.walks()
    train[7] = cases.walks(1, length=300)[0]
    finding = cases.only(time.lengths(cases.case(train)))
    assert "episode 7 have 300 steps; the median has 40" in finding.reason
    train[7] = cases.walks(1, length=100)[0]
    assert not time.lengths(cases.case(train))


@pytest.mark.parametrize("count, severity", [(3, "warning"), (10, "note"), (24, None)])
def test_few_episodes_are_a_note_and_very_few_a_warning(count, severity):
    found = time.few(cases.case(cases.walks(count)))
    assert [finding.severity for finding in found] == [severity] * (severity is not None)


def waiting(first, last, share=1.0):
    """Walks in which nothing moves in steps first to last, in that share of the episodes."""
    train = cases.walks()
    for episode in train[: round(share * len(train))]:
        for x in episode.values():
            x[last:] -= x[last - 1] - x[first]  # it goes on from where it waited
            x[first:last] = x[first]
    return cases.case(train)


@pytest.mark.parametrize("first, last, word", [(0, 9, "begin"), (15, 24, "in their middle")])
def test_waiting_longer_than_a_chunk_is_named(first, last, word):
    finding = cases.only(time.idle(waiting(first, last)))
    assert word in finding.reason and "24 of 24" in finding.reason
    assert re.search("longest [89]", finding.reason)  # one of them may go on slowly


def test_waiting_that_is_short_rare_or_at_the_end_is_no_warning():
    assert not time.idle(waiting(0, 4))
    assert not time.idle(waiting(0, 9, share=0.05))
    assert not time.idle(waiting(32, 40))
    assert cases.only(time.idle(waiting(20, 40))).severity == "note"


def test_slow_is_not_still():
    def crawl(episode):
        for x in episode.values():
            slow = x[0] + np.linspace(0, 0.2, 20)[:, None]  # a tenth of the usual a step
            x[20:] -= x[19] - slow[19]
            x[:20] = slow

    assert not time.idle(cases.spoiled(crawl))


def test_an_observation_that_counts_the_steps_is_named():
    count = lambda e: e["state"].__setitem__((slice(None), 2), np.arange(40) * 0.1)
    finding = cases.only(time.tells_time(cases.spoiled(count)))
    assert "state[2]" in finding.reason and "0.1" in finding.reason
    assert not time.tells_time(cases.case())


def test_a_plan_of_moments_is_noted_where_the_rate_is_known():
    assert "0.16 s" in cases.only(time.hasty(cases.case(fps=50.0))).reason  # 8 steps
    assert not time.hasty(cases.case(fps=10.0))
    assert not time.hasty(cases.case())


def test_a_clock_of_another_rate_than_the_data_set_says_is_named():
    made = cases.case(clocks={"t": cases.clock(np.arange(10) / 10, [10])}, fps=30.0)
    finding = cases.only(time.rate(made))
    assert "t takes 10 steps a second" in finding.reason and "30" in finding.reason
    assert not time.rate(made._replace(fps=10.0))
    assert not time.rate(made._replace(fps=0.0))


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda t: t, None),
        (lambda t: t + 0.5 * (np.arange(20) > 13), "gap of more than 1.5 times the usual 0.1"),
        (lambda t: t - 0.5 * (np.arange(20) == 13), "does not increase after 1 step"),
        (lambda t: 1.7e9 + t, "does not increase"),
    ],
)
def test_clocks_that_leave_gaps_or_stand_still_are_named(spoil, words):
    times = np.tile(np.arange(10) * 0.1, 2)
    made = cases.case(clocks={"t": cases.clock(spoil(times), [10, 20])})
    found = time.clocks(made)
    assert bool(found) == bool(words)
    if words:
        assert any(words in finding.reason for finding in found)
        assert "readable episode" in found[0].reason
