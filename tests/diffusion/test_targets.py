"""Targets: `read` inverts `target`, whatever the network predicts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpjax.core.errors import UserError
from dpjax.diffusion import parameterization, schedules
from dpjax.diffusion.schedules import Level, Path


def arrays(seed=0, shape=(5, 4, 2)):
    x0_key, eps_key = jax.random.split(jax.random.key(seed))
    return jax.random.normal(x0_key, shape), jax.random.normal(eps_key, shape)


def levels():
    """Levels 0, 20, … 80 of the cosine schedule, one a row."""
    return schedules.cosine(100).path(100).now[99::-20]


@pytest.mark.parametrize("kind", parameterization.PREDICTION_TYPES)
def test_read_inverts_target(kind):
    x0, eps = arrays()
    x = parameterization.add_noise(x0, eps, levels())
    estimate = parameterization.estimate(
        kind, parameterization.prediction(kind, x0, eps, levels()), x, levels()
    )
    np.testing.assert_allclose(estimate.x0, x0, atol=1e-5)
    np.testing.assert_allclose(estimate.eps, eps, atol=1e-4)  # σ = .02 at level 0


@pytest.mark.parametrize("kind", parameterization.PREDICTION_TYPES)
def test_one_level_is_a_batch_of_equal_levels(kind):
    x0, eps = arrays()
    one = levels()[2]
    many = jax.tree.map(lambda leaf: jnp.full(5, leaf), one)
    for level in (one, many):
        estimate = parameterization.estimate(kind, x0, eps, level)
        np.testing.assert_allclose(
            estimate.x0, parameterization.estimate(kind, x0, eps, one).x0, rtol=1e-6
        )


def test_targets_are_what_the_papers_define():
    x0, eps = arrays()
    level = levels()[3]
    np.testing.assert_array_equal(parameterization.prediction("epsilon", x0, eps, level), eps)
    np.testing.assert_array_equal(parameterization.prediction("sample", x0, eps, level), x0)
    v = level.alpha * eps - level.sigma * x0
    np.testing.assert_allclose(parameterization.prediction("v", x0, eps, level), v, atol=1e-6)
    np.testing.assert_allclose(
        parameterization.prediction("velocity", x0, eps, level), eps - x0, atol=1e-6
    )


def path_through(alpha, sigma):
    now = Level(np.array([7]), np.array([alpha], np.float32), np.array([sigma], np.float32))
    return Path(now, Level(np.zeros(1), np.ones(1), np.zeros(1)))


def test_epsilon_at_pure_noise_is_refused_by_name():
    with pytest.raises(UserError, match=r"'epsilon' cannot be read at level t=7 \(α = 0\)"):
        parameterization.check_prediction_type("epsilon", path_through(0.0, 1.0))


@pytest.mark.parametrize("kind", ["sample", "v", "velocity"])
def test_other_predictions_can_be_read_at_pure_noise(kind):
    parameterization.check_prediction_type(kind, path_through(0.0, 1.0))


@pytest.mark.parametrize("kind", parameterization.PREDICTION_TYPES)
def test_every_prediction_can_be_read_on_every_cosine_level(kind):
    parameterization.check_prediction_type(kind, schedules.cosine(100).path(100))


def test_an_unknown_prediction_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="'epsilom' is unknown; did you mean 'epsilon'"):
        parameterization.check_prediction_type("epsilom", schedules.cosine(10).path(5))
