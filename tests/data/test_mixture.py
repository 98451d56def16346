"""Several sets in one stream: exact shares, no window lost, a function of (seed, i) alone."""

import numpy as np
import pytest

from dpjax.core.errors import UserError
from dpjax.data import mixture

MIXED = mixture.of_weights((300, 50, 4000), (2.0, 1.0, 1.0))


def which(ids):
    return np.searchsorted(np.cumsum(MIXED.counts), ids, side="right")


def test_a_round_holds_each_set_by_its_share():
    for number in range(3):
        ids = mixture.window_ids(MIXED, 7, number * mixture.ROUND, mixture.ROUND)
        np.testing.assert_array_equal(np.bincount(which(ids)), [512, 256, 256])


def test_any_stretch_is_the_same_stretch_of_the_stream():
    stream = mixture.window_ids(MIXED, 7, 0, 5000)
    for first, size in [(0, 10), (1020, 9), (1024, 1024), (999, 3001)]:
        np.testing.assert_array_equal(
            mixture.window_ids(MIXED, 7, first, size), stream[first : first + size]
        )
    assert not np.array_equal(stream, mixture.window_ids(MIXED, 8, 0, 5000))


@pytest.mark.parametrize("number, count", list(enumerate(MIXED.counts)))
def test_no_window_comes_twice_before_all_have_come_once(number, count):
    stream = mixture.window_ids(MIXED, 7, 0, 20 * mixture.ROUND)
    ids = stream[which(stream) == number] - sum(MIXED.counts[:number])
    for epoch in range(len(ids) // count):
        part = ids[epoch * count : (epoch + 1) * count]
        np.testing.assert_array_equal(np.sort(part), np.arange(count))


def test_the_order_within_a_round_is_mixed():
    ids = which(mixture.window_ids(MIXED, 7, 0, 128))
    assert set(ids) == {0, 1, 2}
    assert not np.array_equal(ids, which(mixture.window_ids(MIXED, 7, mixture.ROUND, 128)))


@pytest.mark.parametrize("weights", [(1, 1, 1), (0.1, 0.2, 0.7), (5, 3, 977)])
def test_shares_are_met_to_a_place(weights):
    places = np.array(mixture.of_weights((9, 9, 9), weights).places)
    assert places.sum() == mixture.ROUND
    np.testing.assert_array_less(np.abs(places - np.array(weights) / sum(weights) * 1024), 1)


def test_a_share_that_would_never_come_is_refused():
    with pytest.raises(
        UserError, match="weights=10000,1 give set 1 a share below 1 in 1024"
    ) as caught:
        mixture.of_weights((9, 9), (10_000, 1))
    assert caught.value.argument == "weights"
