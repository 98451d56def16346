"""Episodes: selection, the split of Chi et al.'s code, the fingerprint."""

import numpy as np
import pytest

from dpjax.data import episodes
from dpjax.data.episodes import Episodes


@pytest.fixture
def three():
    rows = np.arange(6, dtype=np.float32)
    return Episodes({"a": rows, "b": rows[:, None] * 10}, np.array([1, 4, 6]), "made up")


def test_selecting_all_in_order_changes_nothing(three):
    again = episodes.select(three, [0, 1, 2])
    assert episodes.fingerprint(again) == episodes.fingerprint(three)


def test_select_keeps_the_order_it_is_given(three):
    chosen = episodes.select(three, [2, 0])
    np.testing.assert_array_equal(chosen.columns["a"], [4, 5, 0])
    np.testing.assert_array_equal(chosen.columns["b"], [[40], [50], [0]])
    np.testing.assert_array_equal(chosen.ends, [2, 3])


def test_selecting_none_is_empty(three):
    chosen = episodes.select(three, [])
    assert len(chosen.ends) == 0 and len(chosen.starts) == 0
    assert chosen.columns["b"].shape == (0, 1)


def test_join_puts_the_second_after_the_first(three):
    both = episodes.join(three, episodes.select(three, [2]))
    np.testing.assert_array_equal(both.ends, [1, 4, 6, 8])
    np.testing.assert_array_equal(both.columns["b"][:, 0], [0, 10, 20, 30, 40, 50, 40, 50])


def test_starts_and_lengths_follow_from_ends(three):
    np.testing.assert_array_equal(three.starts, [0, 1, 4])
    np.testing.assert_array_equal(three.lengths, [1, 3, 2])


def test_stack_is_the_inverse_of_cutting(three):
    cut = [episodes.select(three, [e]).columns for e in range(3)]
    assert episodes.fingerprint(episodes.stack(cut, "")) == episodes.fingerprint(three)


def test_split_draws_as_the_original_does():
    train, val = episodes.split(206, 0.02, 42)
    want = np.random.default_rng(42).choice(206, size=4, replace=False)
    np.testing.assert_array_equal(val, np.sort(want))
    np.testing.assert_array_equal(np.sort(np.concatenate([train, val])), np.arange(206))


@pytest.mark.parametrize(
    "count, fraction, want",
    [(10, 0.0, 0), (10, 0.01, 1), (10, 1.0, 9), (2, 0.5, 1), (1, 0.5, 0)],
)
def test_split_leaves_an_episode_on_each_side(count, fraction, want):
    train, val = episodes.split(count, fraction, 0)
    assert len(val) == want and len(train) == count - want


def test_fingerprint_sees_one_bit_names_types_and_ends_but_not_the_source(three):
    seen = {episodes.fingerprint(three)}
    flipped = three.columns["a"].copy()
    flipped[3] = np.nextafter(flipped[3], np.inf, dtype=np.float32)
    seen.add(episodes.fingerprint(three._replace(columns={**three.columns, "a": flipped})))
    renamed = {"c": three.columns["a"], "b": three.columns["b"]}
    seen.add(episodes.fingerprint(three._replace(columns=renamed)))
    wider = {**three.columns, "a": three.columns["a"].astype(np.float64)}
    seen.add(episodes.fingerprint(three._replace(columns=wider)))
    seen.add(episodes.fingerprint(three._replace(ends=np.array([2, 4, 6]))))
    assert len(seen) == 5
    assert episodes.fingerprint(three._replace(source="elsewhere")) in seen
    assert all(len(digest) == 16 for digest in seen)
