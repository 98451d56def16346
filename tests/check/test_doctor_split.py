"""What the doctor says of episodes that are there twice."""

import numpy as np
from support import doctor_cases as cases

from dpjax.check.rules import split


def test_a_copied_episode_and_a_piece_of_one_are_named():
    train = cases.walks()
    train[9] = train[2]
    train[12] = {key: x[10:30] for key, x in train[5].items()}
    finding = cases.only(split.duplicates(cases.case(train)))
    assert "3 of 27 episodes" in finding.reason  # of episode 5 half is there twice, not most
    assert "episode 2, episode 9, episode 12" in finding.reason
    assert not split.duplicates(cases.case())


def test_a_copy_on_the_other_side_of_the_split_is_named():
    train = cases.walks()
    made = cases.case(train, val=[*cases.walks(2, seed=1), train[4]])
    finding = cases.only(split.duplicates(made))
    assert "episode 26" in finding.reason and "held out" in finding.reason
    assert not split.near_duplicates(made)  # one line on one thing


def test_episodes_that_wait_alike_are_no_copies():
    rest = lambda e: [x.__setitem__(slice(0, 30), 0) for x in e.values()]
    assert not split.duplicates(cases.spoiled(rest))


def noisy(episode, size, seed=0):
    """An episode with noise on all of its numbers."""
    rng = np.random.default_rng(seed)
    return {key: x + rng.normal(0, size, x.shape).astype(np.float32) for key, x in episode.items()}


def test_a_replay_with_a_sensors_noise_is_nearly_a_copy():
    train = cases.walks()
    train[9] = noisy(train[2], 1e-3)
    finding = cases.only(split.near_duplicates(cases.case(train)))
    assert finding.severity == "note" and "episode 2 and episode 9" in finding.reason
    train[9] = noisy(train[2], 1.0)
    assert not split.near_duplicates(cases.case(train))


def test_a_replay_that_is_held_out_is_a_warning():
    train = cases.walks()
    made = cases.case(train, val=[*cases.walks(2, seed=1), noisy(train[4], 1e-3)])
    finding = cases.only(split.near_duplicates(made))
    assert finding.severity == "warning" and "episode 4 and episode 26" in finding.reason


def test_one_held_out_episode_is_noted_where_its_loss_is_looked_at():
    made = cases.case(val=cases.walks(1, seed=1))
    assert "val_fraction" in cases.only(split.held_out(made)).remedy
    assert not split.held_out(cases.case())
    made.config.val.every = 0
    assert not split.held_out(made)


def test_without_held_out_episodes_nothing_is_compared_with_them():
    made = cases.case()
    none = made.val._replace(columns={k: x[:0] for k, x in made.val.columns.items()}, ends=[])
    made = made._replace(val=none._replace(ends=np.zeros(0, np.int64)))
    for rule in split.RULES:
        assert not rule(made)
