"""Windows are those of Chi et al.'s code: counts, indices, edges."""

import logging

import numpy as np
import pytest

from dpjax.core.errors import UserError
from dpjax.data.windows import window_indices


def original_indices(ends, horizon, before, after):
    """What create_indices and sample_sequence of the original do, in plain loops."""
    indices = []
    masks = []
    start = 0
    for end in ends:
        for first in range(-before, end - start - horizon + after + 1):
            steps = [start + first + i for i in range(horizon)]
            indices.append([min(max(step, start), end - 1) for step in steps])
            masks.append([start <= step < end for step in steps])
        start = end
    return np.array(indices), np.array(masks)


MANY = np.random.default_rng(0).integers(9, 60, 30)


@pytest.mark.parametrize("lengths", [[16], [17, 30], [12, 40, 9, 100], MANY])
@pytest.mark.parametrize("horizon, before, after", [(16, 1, 7), (16, 0, 0), (9, 3, 8), (1, 0, 0)])
def test_indices_and_mask_equal_the_original(lengths, horizon, before, after, caplog):
    ends = np.cumsum([n for n in lengths if n + before + after >= horizon])
    if not len(ends):
        pytest.skip("no episode is long enough for the original")
    indices, mask = window_indices(ends, horizon, before, after, source="set")
    want_indices, want_mask = original_indices(ends.tolist(), horizon, before, after)
    np.testing.assert_array_equal(indices, want_indices)
    np.testing.assert_array_equal(mask, want_mask)
    assert indices.dtype == np.int32 and mask.dtype == np.float32
    assert not caplog.records


def test_an_episode_gives_length_plus_room_windows():
    indices, _ = window_indices(np.array([100]), 16, 1, 7)
    assert len(indices) == 100 + 1 + 7 - 16 + 1


def test_the_first_and_last_window_repeat_the_edges():
    indices, mask = window_indices(np.array([10, 20]), 4, 1, 2)
    np.testing.assert_array_equal(indices[0], [0, 0, 1, 2])
    np.testing.assert_array_equal(mask[0], [0, 1, 1, 1])
    np.testing.assert_array_equal(indices[-1], [18, 19, 19, 19])
    np.testing.assert_array_equal(mask[-1], [1, 1, 0, 0])


def test_no_window_crosses_an_episode():
    ends = np.array([12, 40, 49, 149])
    indices, _ = window_indices(ends, 16, 1, 15)
    episode = np.searchsorted(ends, indices, side="right")
    assert (episode == episode[:, :1]).all()


def test_reaching_further_than_a_window_is_reaching_one_step_less():
    far, _ = window_indices(np.array([30]), 8, 50, 50)
    near, _ = window_indices(np.array([30]), 8, 7, 7)
    np.testing.assert_array_equal(far, near)


def test_a_short_episode_gives_one_padded_window_and_a_warning(caplog):
    indices, mask = window_indices(np.array([30, 34, 64]), 16, 1, 7, source="set")
    short = (indices[:, 0] >= 30) & (indices[:, 0] < 34)
    np.testing.assert_array_equal(indices[short], [[30, 30, 31, 32, 33] + [33] * 11])
    np.testing.assert_array_equal(mask[short], [[0, 1, 1, 1, 1] + [0] * 11])
    (line,) = caplog.messages
    assert line.startswith("set: 1 of 3 episodes") and "4 steps" in line and "episode 1" in line


def test_an_episode_of_one_step_is_not_lost():
    indices, mask = window_indices(np.array([1]), 16, 1, 7)
    assert indices.shape == (1, 16) and mask.sum() == 1


def test_without_a_source_nothing_is_logged(caplog):
    with caplog.at_level(logging.DEBUG, "dpjax"):
        window_indices(np.array([1]), 16, 1, 7)
    assert not caplog.records


def test_no_episodes_is_an_error():
    with pytest.raises(UserError, match="0 windows from 0 episodes"):
        window_indices(np.array([], np.int64), 16, 1, 7)
