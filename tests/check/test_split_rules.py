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


def test_a_copied_episode_and_a_part_of_one_are_named():
    train = cases.episodes()
    train[9] = train[2]
    train[12] = {key: x[10:30] for key, x in train[5].items()}
    finding = cases.only(split.duplicate_episodes(cases.context(train)))
    assert "3 of 27 episodes" in finding.reason  # of episode 5 only half is copied, not most
    assert "episode 2, episode 9, episode 12" in finding.reason
    assert not split.duplicate_episodes(cases.context())


def test_a_copy_on_the_other_side_of_the_split_is_named():
    train = cases.episodes()
    context = cases.context(train, val=[*cases.episodes(2, seed=1), train[4]])
    finding = cases.only(split.duplicate_episodes(context))
    assert "episode 26" in finding.reason and "held out" in finding.reason
    assert not split.near_duplicates(context)  # one finding per problem


def test_episodes_that_wait_alike_are_not_copies():
    def rest(episode):
        for x in episode.values():
            x[:30] = 0

    assert not split.duplicate_episodes(cases.changed(rest))


def noisy(episode, size, seed=0):
    """An episode with noise on all of its numbers."""
    rng = np.random.default_rng(seed)
    return {key: x + rng.normal(0, size, x.shape).astype(np.float32) for key, x in episode.items()}


def test_a_replay_with_the_noise_of_a_sensor_is_nearly_a_copy():
    train = cases.episodes()
    train[9] = noisy(train[2], 1e-3)
    finding = cases.only(split.near_duplicates(cases.context(train)))
    assert finding.severity == "note" and "episode 2 and episode 9" in finding.reason
    train[9] = noisy(train[2], 1.0)
    assert not split.near_duplicates(cases.context(train))


def test_a_held_out_replay_is_a_warning():
    train = cases.episodes()
    context = cases.context(train, val=[*cases.episodes(2, seed=1), noisy(train[4], 1e-3)])
    finding = cases.only(split.near_duplicates(context))
    assert finding.severity == "warning" and "episode 4 and episode 26" in finding.reason


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
