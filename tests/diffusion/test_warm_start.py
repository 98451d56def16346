"""Warm start: the end of the path from the last chunk, and the whole path without one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny_config
from support.toy_policy import HORIZON, UNITS, batch_of, make, perceptron

from dpjax.config import build
from dpjax.core import spec
from dpjax.core.types import ACTION
from dpjax.diffusion import parameterization, samplers, sampling, schedules
from dpjax.policies import diffusion

STEPS, SKIPPED = 10, 6
PATH = schedules.cosine(100).path(STEPS)


def predict(x, level):
    return parameterization.estimate("v", 0.5 * jnp.tanh(x) + level.t / 10_000, x, level)


def start(batch=3):
    keys = jax.random.split(jax.random.key(0), batch)
    return sampling.draw_noise(keys, (HORIZON, 2)), keys


@functools.cache
def loops(name):
    """(cold, warm), jitted: `(x, keys) -> x_0` and `(x, keys, last) -> x_0`."""
    cold = functools.partial(sampling.sample, predict, sampler=getattr(samplers, name)())
    run = lambda x, keys, last: sampling.warm_start(
        lambda _, *args, **options: cold(*args, **options), last, SKIPPED
    )(predict, x, PATH, keys)
    return jax.jit(lambda x, keys: cold(x, PATH, keys)), jax.jit(run)


@pytest.mark.parametrize("name", ["ddpm", "ddim"])
def test_an_example_without_a_last_chunk_starts_from_noise(name):
    x, keys = start()
    cold, warm = loops(name)
    last = jnp.tanh(x).at[1].set(jnp.nan)
    mixed = warm(x, keys, last)
    np.testing.assert_allclose(mixed[1], cold(x, keys)[1], atol=1e-6)
    assert (abs(mixed - cold(x, keys)).max((1, 2)) > 1e-3).tolist() == [True, False, True]
    # An example does not depend on whether another one has to start from noise.
    every = warm(x, keys, jnp.tanh(x))
    np.testing.assert_allclose(mixed[::2], every[::2], atol=1e-6)


def test_an_example_with_a_last_chunk_takes_the_end_of_the_path_from_it():
    x, keys = start()
    last = jnp.tanh(x[::-1])
    end = jax.tree.map(lambda leaf: leaf[SKIPPED:], PATH)
    noisy = end.now.alpha[0] * last + end.now.sigma[0] * x
    want = sampling.sample(predict, noisy, end, keys, sampler=samplers.ddim())
    np.testing.assert_allclose(loops("ddim")[1](x, keys, last), want, atol=1e-6)


def test_steps_beyond_the_last_chunk_repeat_its_last_step():
    last = jnp.arange(8.0).reshape(2, 4, 1).at[0, 2:].set(jnp.nan).at[1].set(jnp.nan)
    x0, has_last = sampling.extend(last)
    np.testing.assert_array_equal(x0[..., 0], [[0, 1, 1, 1], [0, 0, 0, 0]])
    assert has_last.tolist() == [True, False]


def test_without_a_warm_start_the_last_chunk_changes_no_bit():
    policy = make()
    batch = batch_of([0, 1, 2])
    params = policy.init(jax.random.key(0), batch)
    text = lambda *more: str(
        jax.make_jaxpr(lambda rng, obs: policy.sample(params, rng, obs, *more))(
            jax.random.key(1), batch.obs
        )
    )
    assert text() == text(batch.actions)


def test_a_chunk_sampled_in_almost_no_steps_is_the_last_chunk():
    # A network that predicts its input: of ten steps the last one is left, with σ = 0.02.
    same = perceptron()._replace(apply=lambda params, x, context, keys=None: x)
    policy = make(same, prediction_type="sample", sampler=samplers.ddim(), warm_start=0.99)
    batch = batch_of([0, 1, 2])
    params = policy.init(jax.random.key(0), batch)
    units = lambda actions: UNITS.normalize({ACTION: actions})[ACTION]
    last = UNITS.restore(ACTION, jnp.tanh(units(batch.actions)))
    got = jax.jit(policy.sample)(params, jax.random.key(1), batch.obs, last)
    np.testing.assert_allclose(units(got), units(last), atol=0.1)


def test_the_first_chunk_and_the_later_ones_are_one_program():
    config = tiny_config.get_config()
    config.sampler.warm_start = 0.5
    config.horizon.predict = HORIZON
    traced = []

    def sample(params, rng, obs, previous=None):
        traced.append(previous.shape)
        return previous

    policy = diffusion.Policy(None, None, sample)
    act = build.compiled_policy(config, policy, spec.Spec({"state": 3}, 2, ""))
    obs = batch_of([0, 1]).obs
    first = act({}, jax.random.key(0), obs)
    assert np.isnan(first).all()
    again = act({}, jax.random.key(0), obs, np.zeros((2, HORIZON, 2)))
    assert (again == 0).all() and traced == [(2, HORIZON, 2)]
