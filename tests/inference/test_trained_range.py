"""Observations far outside of the training data are counted and said, wherever a policy is run."""

import time

import jax
import numpy as np
import pytest

from dpjax.inference.compiled import CompiledPolicy
from dpjax.inference.trained_range import FarObservations, Range

LOW = np.float32([-3, 0])
HIGH = np.float32([3, np.inf])


def observations(*newest):
    """{"state": [B, 2, 2]} with these newest steps; the older ones are far away."""
    newest = np.float32(newest)
    return {"state": np.stack([np.full_like(newest, 1e6), newest], axis=1)}


def test_the_newest_step_of_each_example_counts_and_the_first_is_logged(caplog):
    far = FarObservations({"state": Range(LOW, HIGH)})
    far.count(observations([0, 1], [3, 1e9]), 2)
    assert not caplog.records and far.counts == {"state": 0}
    far.count(observations([0, 1], [4, -1], [0, np.nan]), 3)
    assert far.counts == {"state": 2} and far.total == 5
    assert "state[0] = 4 is far outside" in caplog.text and "2 of 5" in caplog.text
    # Each key is logged once; the count goes on.
    far.count(observations([9, 1]), 1)
    assert len(caplog.records) == 1 and far.counts == {"state": 3}
    far.log_counts()
    assert "state was far outside of the training data in 3 of 6" in caplog.text


def test_a_compiled_policy_counts_without_the_padding_of_its_batch(caplog):
    sample = lambda params, keys, obs: obs["state"]
    shapes = {"state": jax.ShapeDtypeStruct((2, 2), np.float32)}
    policy = CompiledPolicy(sample, shapes, ranges={"state": Range(LOW, HIGH)})
    policy((), jax.random.key(0), observations([0, 1], [0, 1], [7, 1]))
    assert policy.far.counts == {"state": 1} and policy.far.total == 3
    assert len(caplog.records) == 1


def test_counting_takes_microseconds():
    far = FarObservations({"state": Range(np.full(20, -3.0), np.full(20, 3.0))})
    obs = {"state": np.zeros((1, 2, 20), np.float32)}
    times = []
    for _ in range(200):
        start = time.perf_counter()
        far.count(obs, 1)
        times.append(time.perf_counter() - start)
    assert np.median(times) < 1e-4


@pytest.mark.parametrize("mode", ["limits", "gaussian", "identity"])
def test_the_range_of_a_key_follows_from_its_mode(mode):
    from support import tiny_custom

    from dpjax.config import build, normalization
    from dpjax.core.normalizer import Normalizer
    from dpjax.core.spec import Spec

    config = tiny_custom.get_config()
    config.normalize.obs = mode
    config.representation.layouts = {"pose": "1 axis_angle 1"}
    # 1 plain number, 6 of the rotation, 1 plain number.
    offset = np.float32([1, *[0] * 6, 5])
    scale = np.float32([2, *[1] * 6, 0.5])
    ranges = normalization.trained_ranges(
        config,
        Normalizer({"pose": offset}, {"pose": scale}),
        Spec({"pose": 5, "cam": (8, 8, 3)}, 2, ""),
        build.representation(config),
    )
    if mode == "identity":
        assert not ranges
        return
    units = {"limits": 3, "gaussian": 10}[mode]
    infinite = [np.inf] * 3
    np.testing.assert_allclose(ranges["pose"].high, [1 + 2 * units, *infinite, 5 + 0.5 * units])
    np.testing.assert_allclose(ranges["pose"].low[-1], 5 - 0.5 * units)
