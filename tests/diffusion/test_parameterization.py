"""Prediction types: `estimate` inverts `prediction`, whatever the network predicts."""

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
    """Levels 0, 20, … 80 of the cosine schedule, one per example."""
    return schedules.cosine(100).path(100).now[99::-20]


@pytest.mark.parametrize("prediction_type", parameterization.PREDICTION_TYPES)
def test_estimate_inverts_prediction(prediction_type):
    x0, eps = arrays()
    x = parameterization.add_noise(x0, eps, levels())
    estimate = parameterization.estimate(
        prediction_type,
        parameterization.prediction(prediction_type, x0, eps, levels()),
        x,
        levels(),
    )
    np.testing.assert_allclose(estimate.x0, x0, atol=1e-5)
    np.testing.assert_allclose(estimate.eps, eps, atol=1e-4)  # σ = .02 at level 0


@pytest.mark.parametrize("prediction_type", parameterization.PREDICTION_TYPES)
def test_one_level_is_a_batch_of_equal_levels(prediction_type):
    x0, eps = arrays()
    one = levels()[2]
    many = jax.tree.map(lambda leaf: jnp.full(5, leaf), one)
    for level in (one, many):
        estimate = parameterization.estimate(prediction_type, x0, eps, level)
        np.testing.assert_allclose(
            estimate.x0, parameterization.estimate(prediction_type, x0, eps, one).x0, rtol=1e-6
        )


def test_predictions_are_what_the_papers_define():
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
    with pytest.raises(UserError, match=r"'epsilon' does not determine .* t=7 \(α = 0\)") as error:
        parameterization.check_prediction_type("epsilon", path_through(0.0, 1.0))
    assert error.value.argument == "prediction_type"


@pytest.mark.parametrize("prediction_type", ["sample", "v", "velocity"])
def test_other_predictions_determine_the_data_at_pure_noise(prediction_type):
    parameterization.check_prediction_type(prediction_type, path_through(0.0, 1.0))


@pytest.mark.parametrize("prediction_type", parameterization.PREDICTION_TYPES)
def test_every_prediction_determines_the_data_at_every_cosine_level(prediction_type):
    parameterization.check_prediction_type(prediction_type, schedules.cosine(100).path(100))


def test_an_unknown_prediction_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="'epsilom' is unknown; did you mean 'epsilon'"):
        parameterization.check_prediction_type("epsilom", schedules.cosine(10).path(5))
