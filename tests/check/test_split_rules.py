"""What the check finds about the set of episodes: their number, lengths, copies, the split."""

import numpy as np
import pytest
from support import check_cases as cases

from dpjax.check import rules
from dpjax.check.rules import split

SPLIT_RULES = [rule for rule in rules.RULES if rule.__module__ == split.__name__]


@pytest.mark.parametrize("count, severity", [(3, "warning"), (10, "note"), (24, None)])
def test_few_episodes_are_a_note_and_very_few_a_warning(count, severity):
    findings = split.few_episodes(cases.context(cases.episodes(count)))
    assert [finding.severity for finding in findings] == [severity] * (severity is not None)


def test_an_episode_far_longer_than_the_others_is_noted():
    train = cases.episodes()
    train[7] = cases.episodes(1, length=300)[0]
    finding = cases.only(split.odd_lengths(cases.context(train)))
    assert "episode 7 have 300 steps; the median has 40" in finding.reason
    train[7] = cases.episodes(1, length=100)[0]
    assert not split.odd_lengths(cases.context(train))


def test_episodes_shorter_than_a_window_are_counted_and_named():
    train = cases.episodes()
    train[2] = cases.episodes(1, length=3)[0]
    finding = cases.only(split.short_episodes(cases.context(train)))
    assert "1 of 24" in finding.reason and "episode 2" in finding.reason
    train[2] = cases.episodes(1, length=4)[0]  # To - 1 + Ta - 1 of 8 steps may be copies
    assert not split.short_episodes(cases.context(train))


def test_one_held_out_episode_is_noted_if_its_error_is_measured():
    context = cases.context(val=cases.episodes(1, seed=1))
    assert "val_fraction" in cases.only(split.one_held_out(context)).remedy
    assert not split.one_held_out(cases.context())
    context.config.val.every = 0
    assert not split.one_held_out(context)


def test_without_held_out_episodes_there_is_nothing_to_compare():
    context = cases.context()
    columns = {key: x[:0] for key, x in context.val.columns.items()}
    empty = context.val._replace(columns=columns, ends=np.zeros(0, np.int64))
    for rule in SPLIT_RULES:
        assert not rule(context._replace(val=empty))
