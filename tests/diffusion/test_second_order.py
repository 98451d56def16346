"""Samplers of second order: equal to diffusers, and as exact as their order promises."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.toy_diffusion import (
    PREDICTION_TYPES,
    gaussian_error,
    keys_of,
    noise,
    toy_predictor,
)
from support.toy_policy import batch_of, make

from dpjax.diffusion import parameterization, samplers, sampling, schedules
from dpjax.diffusion.schedules import Level, Path

COSINE = schedules.cosine(100)
SAMPLERS = {"dpm": samplers.dpm_solver(), "heun": samplers.heun()}


@jax.jit
def toy_ends(x, path):
    """{(prediction, clip): x_0} of the toy network by DPM-Solver++, with diffusers' names."""
    clips = {"True": 1.0, "False": float("inf")}
    return {
        (name, clip): sampling.sample(
            toy_predictor(PREDICTION_TYPES[name]),
            x,
            path,
            keys_of(x),
            sampler=SAMPLERS["dpm"],
            clip=clips[clip],
        )
        for name, clip in itertools.product(PREDICTION_TYPES, clips)
    }


@pytest.mark.parametrize(
    "spacing, num_steps", [("leading", 10), ("trailing", 10), ("linspace", 20), ("trailing", 2)]
)
def test_dpm_solver_equals_diffusers(golden, spacing, num_steps):
    arrays = golden("samplers")
    # Its leading and linspace levels are not those of diffusers' other schedulers.
    visited = arrays[f"dpm_timesteps/{spacing}/{num_steps}"]
    every = COSINE.path(100).now[::-1]
    data = COSINE.path(1).to
    levels = jax.tree.map(lambda a, b: jnp.concatenate([a[visited], b]), every, data)
    for (name, clip), x in toy_ends(arrays["x"], Path(levels[:-1], levels[1:])).items():
        want = arrays[f"dpm/{name}/{spacing}/{num_steps}/{clip}"]
        np.testing.assert_allclose(x, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("num_steps", [1, 2, 37])
def test_perfect_denoiser_lands_on_the_data(name, num_steps):
    x = noise(seed=1)[0]
    x0 = jnp.tanh(x[::-1])

    def predict(x, level):
        return parameterization.Estimate(x0, (x - level.alpha * x0) / level.sigma)

    path = COSINE.path(num_steps)
    got = sampling.sample(predict, x, path, keys_of(x), sampler=SAMPLERS[name], clip=1.0)
    np.testing.assert_allclose(got, x0, atol=1e-5)


def log_snr_path(num_steps, first=-3.0, last=3.0):
    """Levels evenly spaced in log(α/σ), α² + σ² = 1; the last has noise."""
    log_snr = jnp.linspace(first, last, num_steps + 1)
    alpha = jax.nn.sigmoid(2 * log_snr) ** 0.5
    levels = Level(log_snr, alpha, jnp.sqrt(jax.nn.sigmoid(-2 * log_snr)))
    return Path(levels[:-1], levels[1:])


def order(sampler, path, steps=(16, 32, 64)):
    errors = [gaussian_error(sampler, path(n)) for n in steps]
    return np.log2(np.array(errors[:-1]) / errors[1:])


def test_halving_the_step_halves_the_error_of_ddim():
    np.testing.assert_allclose(order(samplers.ddim(), log_snr_path), 1, atol=0.1)


@pytest.mark.parametrize("name", SAMPLERS)
def test_halving_the_step_quarters_the_error_of_second_order(name):
    measured = order(SAMPLERS[name], log_snr_path)
    np.testing.assert_allclose(measured, 2, atol=0.25)
    few = [gaussian_error(s, log_snr_path(16)) for s in (SAMPLERS[name], samplers.ddim())]
    assert few[0] < few[1] / 3


def test_heun_is_algorithm_1_of_karras_where_alpha_is_one():
    sigma = jnp.array([80.0, 20.0, 5.0, 1.0, 0.1, 0.0])
    levels = Level(jnp.log(sigma + 1), jnp.ones(6), sigma)
    denoiser = lambda x, t: x / (1 + t**2) + jnp.sin(x) / (1 + t)  # D(x; σ)
    x = want = 80 * noise(seed=1)[0]
    for t, s in zip(sigma[:-1], sigma[1:]):
        slope = (want - denoiser(want, t)) / t
        end = want + (s - t) * slope
        if s:
            slope = (slope + (end - denoiser(end, s)) / s) / 2
        want = want + (s - t) * slope

    def predict(x, level):
        x0 = denoiser(x, level.sigma)
        return parameterization.Estimate(x0, (x - x0) / level.sigma)

    path = Path(levels[:-1], levels[1:])
    got = sampling.sample(predict, x, path, keys_of(x), sampler=samplers.heun())
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def visited_levels(sampler, num_steps, spacing="auto"):
    """The levels of the path that a policy with that sampler takes."""
    paths = []

    def sampling_loop(predict, x, path, keys, **options):
        paths.append(path)
        return x

    policy = make(
        sampler=sampler, num_steps=num_steps, spacing=spacing, sampling_loop=sampling_loop
    )
    batch = batch_of([0])
    params = policy.init(jax.random.key(0), batch)
    policy.sample(params, jax.random.key(1), batch.obs)
    return paths[0].now.t.tolist()


def test_heun_starts_at_the_noisiest_level_unless_another_spacing_is_asked_for():
    heun = samplers.heun()
    ddim = samplers.ddim()
    assert visited_levels(heun, 5) == [99, 79, 59, 39, 19]  # K - 1 - i K / S
    assert visited_levels(heun, 5, "leading") == [80, 60, 40, 20, 0]
    assert visited_levels(ddim, 5) == [80, 60, 40, 20, 0]  # as diffusers
    assert visited_levels(ddim, 5, "trailing") == [99, 79, 59, 39, 19]


def test_heun_has_two_evaluations_per_step_and_one_in_the_last():
    path = COSINE.path(4)
    evaluations = samplers.heun_evaluations(path)
    np.testing.assert_array_equal(evaluations.step, [0, 1, 1, 2, 2, 3, 3])
    np.testing.assert_array_equal(evaluations.now.t, path.now.t[evaluations.step])
    np.testing.assert_array_equal(evaluations.last, [1, 3, 5, 6])


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_was_prepared_for_a_step_comes_with_its_level(name):
    x = noise(seed=1)[0]
    path = COSINE.path(5)
    predict = toy_predictor("v")
    by_slice = lambda x, level, t: predict(x, level.replace(t=t))
    trace = lambda predict, prepared: sampling.trace(
        predict, x, path, keys_of(x), sampler=SAMPLERS[name], prepared=prepared
    )
    got = trace(by_slice, path.now.t)
    assert got.shape == (5, *x.shape)
    np.testing.assert_array_equal(got, trace(predict, None))
    end = sampling.sample(predict, x, path, keys_of(x), sampler=SAMPLERS[name])
    np.testing.assert_allclose(got[-1], end, atol=1e-6)
