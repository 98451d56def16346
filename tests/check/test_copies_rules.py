"""What the check finds about equal episodes."""

import numpy as np
from support import check_cases as cases

from dpjax.check.rules import copies


def noisy(episode, size, seed=0):
    """An episode with noise on all of its numbers."""
    rng = np.random.default_rng(seed)
    return {key: x + rng.normal(0, size, x.shape).astype(np.float32) for key, x in episode.items()}


def test_a_copied_episode_and_a_part_of_one_are_named():
    train = cases.episodes()
    train[9] = train[2]
    train[12] = {key: x[10:30] for key, x in train[5].items()}
    finding = cases.only(copies.duplicate_episodes(cases.context(train)))
    assert "3 of 27 episodes" in finding.reason  # of episode 5 only half is copied, not most
    assert "episode 2, episode 9, episode 12" in finding.reason
    assert not copies.duplicate_episodes(cases.context())


def test_a_copy_on_the_other_side_of_the_split_is_named():
    train = cases.episodes()
    context = cases.context(train, val=[*cases.episodes(2, seed=1), train[4]])
    finding = cases.only(copies.duplicate_episodes(context))
    assert "episode 26" in finding.reason and "held out" in finding.reason
    assert not copies.near_duplicates(context)  # one finding per problem


def test_episodes_that_wait_alike_are_not_copies():
    def rest(episode):
        for x in episode.values():
            x[:30] = 0

    assert not copies.duplicate_episodes(cases.changed(rest))


def test_a_replay_with_the_noise_of_a_sensor_is_nearly_a_copy():
    train = cases.episodes()
    train[9] = noisy(train[2], 1e-3)
    finding = cases.only(copies.near_duplicates(cases.context(train)))
    assert finding.severity == "note" and "episode 2 and episode 9" in finding.reason
    train[9] = noisy(train[2], 1.0)
    assert not copies.near_duplicates(cases.context(train))


def test_a_held_out_replay_is_a_warning():
    train = cases.episodes()
    context = cases.context(train, val=[*cases.episodes(2, seed=1), noisy(train[4], 1e-3)])
    finding = cases.only(copies.near_duplicates(context))
    assert finding.severity == "warning" and "episode 4 and episode 26" in finding.reason
