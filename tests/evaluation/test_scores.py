"""The intervals are the textbook's, and broken episodes do not count as failures."""

import json

import numpy as np
import pytest

from dpjax.evaluation import scores
from dpjax.evaluation.rollout import Episode


def episode(seed, score, success=False, broken=None, steps=10):
    return Episode(
        seed=seed,
        steps=steps,
        progress=np.array([score] * (not broken), np.float32),
        columns={},
        actions=np.zeros((steps, 2), np.float32),
        score=score,
        success=success,
        broken=broken,
    )


@pytest.mark.parametrize(
    "successes, trials, low, high",
    [(0, 10, 0.0, 0.277533), (5, 10, 0.236593, 0.763407), (10, 10, 0.722467, 1.0)],
)
def test_wilson_is_the_textbooks(successes, trials, low, high):
    np.testing.assert_allclose(scores.wilson(successes, trials), (low, high), atol=1e-5)


Z = 1.959964  # 97.5 % point of the normal distribution


def test_wilsons_ends_are_where_the_normal_test_just_passes():
    # The interval is defined by |p - q| = z sqrt(q (1 - q) / n) at both of its ends q.
    for end in scores.wilson(31, 50):
        gap = abs(31 / 50 - end)
        assert gap == pytest.approx(Z * np.sqrt(end * (1 - end) / 50), rel=1e-6)


def test_bootstrap_of_constant_data_has_no_width():
    assert scores.bootstrap(np.full(20, 0.5)) == (0.5, 0.5)


def test_bootstrap_is_near_the_normal_interval_and_the_same_each_time():
    x = np.random.default_rng(1).normal(0.6, 0.2, 400)
    low, high = scores.bootstrap(x)
    half = Z * x.std() / np.sqrt(len(x))
    np.testing.assert_allclose([low, high], [x.mean() - half, x.mean() + half], atol=2e-3)
    assert scores.bootstrap(x) == (low, high)


def test_broken_episodes_are_counted_and_left_out():
    episodes = [episode(i, 0.8, success=i < 2, steps=100) for i in range(4)]
    broken = episode(9, float("nan"), broken="reset: OSError: gone", steps=0)
    numbers = scores.summarize([*episodes, broken])
    assert numbers["episodes"] == 5 and numbers["broken"] == 1
    assert numbers["score"] == pytest.approx(0.8) and numbers["success"] == 0.5
    assert numbers["mean_steps"] == 100
    assert "1 broken, left out" in scores.line(numbers)
    json.dumps([numbers, scores.by_seed([*episodes, broken])], allow_nan=False)


def test_no_valid_episode_is_no_score_rather_than_zero():
    numbers = scores.summarize([episode(0, float("nan"), broken="no")])
    assert numbers["score"] is None and numbers["success_interval"] is None
    assert scores.line(numbers).startswith("score none")


def test_the_line_reads_well():
    numbers = dict(
        score=0.871, score_interval=[0.82, 0.914], success=0.62, success_interval=[0.48, 0.74],
        episodes=50, broken=0, out_of_bounds=0,
    )  # fmt: skip
    expected = "score 0.87 [0.82, 0.91]  success 0.62 [0.48, 0.74]  50 episodes"
    assert scores.line(numbers) == expected
