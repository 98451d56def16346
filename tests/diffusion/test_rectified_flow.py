"""Rectified flow: on straight lines the samplers are the textbook's loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.toy_diffusion import gaussian_error, keys_of, noise
from support.toy_policy import HORIZON, UNITS, batch_of, perceptron

from dpjax.core import types
from dpjax.core.errors import UserError
from dpjax.core.types import ACTION
from dpjax.diffusion import parameterization, samplers, sampling, schedules
from dpjax.nets.encoders import Concat
from dpjax.policies import base
from dpjax.policies import diffusion as policies

K = 100
FLOW = schedules.rectified_flow(K)
SECOND = {"heun": samplers.heun(), "dpm": samplers.dpm_solver()}


def velocity(x, t):
    """The prediction of a toy network: a function of x and of its time input t = K u."""
    return jnp.sin(x) + t / K


def predict(x, level):
    return parameterization.estimate("velocity", velocity(x, level.t), x, level)


def start():
    return noise(seed=1)[0]


@pytest.mark.parametrize("num_steps", [1, 10])
def test_ddim_on_a_flow_is_euler(num_steps):
    want = start()
    times = np.linspace(1, 0, num_steps + 1)
    for u, to in zip(times[:-1], times[1:]):
        want = want + (to - u) * velocity(want, K * u)
    path = FLOW.path(num_steps)
    got = sampling.sample(predict, start(), path, keys_of(want), sampler=samplers.ddim())
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_heun_on_a_flow_is_heun_in_time():
    want = start()
    times = np.linspace(1, 0, 6)
    for u, to in zip(times[:-1], times[1:]):
        slope = velocity(want, K * u)
        if to:
            slope = (slope + velocity(want + (to - u) * slope, K * to)) / 2
        want = want + (to - u) * slope
    got = sampling.sample(predict, start(), FLOW.path(5), keys_of(want), sampler=samplers.heun())
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_a_perfect_velocity_lands_on_the_data_in_one_step():
    x = start()
    x0 = jnp.tanh(x[::-1])
    velocity = lambda x, level: (x - x0) / level.sigma
    perfect = lambda x, level: parameterization.estimate("velocity", velocity(x, level), x, level)
    for sampler in (samplers.ddim(), samplers.ddpm(), *SECOND.values()):
        for num_steps in (1, 7):
            got = sampling.sample(
                perfect, x, FLOW.path(num_steps), keys_of(x), sampler=sampler, clip=1.0
            )
            np.testing.assert_allclose(got, x0, atol=1e-5)


def test_from_pure_noise_to_the_data_heun_quarters_the_error():
    errors = lambda s: np.array([gaussian_error(s, FLOW.path(n)) for n in (16, 32, 64)])
    euler, dpm, heun = map(errors, (samplers.ddim(), SECOND["dpm"], SECOND["heun"]))
    np.testing.assert_allclose(np.log2(euler[:-1] / euler[1:]), 1, atol=0.15)
    np.testing.assert_allclose(np.log2(heun[:-1] / heun[1:]), 2, atol=0.25)
    # log(α/σ) is infinite at both ends of a flow, where DPM-Solver++ is of first order: in
    # float64 its order is 1.5 between 32 and 64 steps and 1.77 between 128 and 256.
    assert (dpm < euler / 5).all()


def test_the_loss_is_flow_matchings():
    policy = policies.diffusion_policy(
        base.encoder_of(Concat(("state",))),
        perceptron(),
        FLOW,
        UNITS,
        horizon=HORIZON,
        sampler=samplers.ddim(),
        num_steps=4,
        prediction_type="velocity",
    )
    batch = batch_of(range(6))
    rng = jax.random.key(3)
    params = policy.init(jax.random.key(0), batch)
    total, sums = policy.loss(params, rng, batch)

    # Lipman et al. 2023, eq. 23: ||v(x_u) - (ε - x_0)||² at x_u = (1 - u) x_0 + u ε.
    keys = types.split_keys(jax.vmap(jax.random.fold_in, (None, 0))(rng, batch.index), 4)
    u = jax.vmap(jax.random.uniform)(keys[0])
    eps = sampling.draw_noise(keys[1], batch.actions.shape[1:])
    x0 = UNITS.normalize({ACTION: batch.actions})[ACTION]
    x = (1 - u[:, None, None]) * x0 + u[:, None, None] * eps
    net = perceptron()
    weights = params["denoiser"]
    y = net.apply(weights, x, net.prepare(weights, batch.obs["state"], K * u))
    want = ((y - (eps - x0)) ** 2).mean(-1)
    np.testing.assert_allclose(total / sums["weight"], want.mean(), rtol=1e-4)


def test_epsilon_does_not_determine_the_data_at_pure_noise():
    with pytest.raises(
        UserError, match="'epsilon' does not determine the data at level t=100 .* 'velocity'"
    ):
        parameterization.check_prediction_type("epsilon", FLOW.path(4))
    for name in ("velocity", "v", "sample"):
        parameterization.check_prediction_type(name, FLOW.path(4))
