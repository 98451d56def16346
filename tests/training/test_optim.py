"""The learning rate, clipping and the decay of the average, as numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpjax.training import optim


def test_a_gradient_of_zero_is_not_divided_by_its_norm():
    assert optim.clip_factor(jnp.float32(0), 10.0) == 1
    assert np.isnan(optim.clip_factor(jnp.float32(np.nan), 10.0))


def test_ema_decay_is_the_originals():
    count = jnp.array([0, 1, 2, 3, 10_000, 10**7])
    got = optim.ema_decay(count, power=0.75, largest=0.9999)
    want = [0, 0, 1 - 2**-0.75, 1 - 3**-0.75, 0.999, 0.9999]
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert got[2] == pytest.approx(0.405, abs=5e-4) and got[3] == pytest.approx(0.561, abs=5e-4)


def updates(steps, warmup, at, **options):
    """Size of Adam's update for a constant gradient at some steps: the learning rate."""
    tx = optim.adamw(
        **{"lr": 1e-2, "b1": 0.0, "b2": 0.0, "eps": 0.0, "weight_decay": 0.0},
        **{"steps": steps, "warmup": warmup, **options},
    )
    weight = jnp.ones(1)

    def one(opt_state, _):
        update, opt_state = tx.update(jnp.ones(1), opt_state, weight)
        return opt_state, -update[0]

    return jax.lax.scan(one, tx.init(weight), length=steps + 1)[1][np.array(at)]


def test_warm_up_starts_at_zero_and_the_cosine_ends_at_zero():
    got = updates(100, 20, [0, 10, 20, 60, 100])
    np.testing.assert_allclose(got, [0, 5e-3, 1e-2, 5e-3, 0], atol=1e-7)


def test_the_cosine_ends_at_a_share_of_lr_and_a_share_of_one_is_constant():
    # Halfway a cosine is the mean of both ends.
    np.testing.assert_allclose(
        updates(100, 20, [20, 60, 100], end=0.5), [1e-2, 7.5e-3, 5e-3], atol=1e-7
    )
    np.testing.assert_allclose(updates(100, 20, [10, 20, 100], end=1.0), [5e-3, 1e-2, 1e-2])


def test_without_warm_up_the_first_step_is_the_largest():
    np.testing.assert_allclose(updates(100, 0, [0, 50]), [1e-2, 5e-3], atol=1e-7)
