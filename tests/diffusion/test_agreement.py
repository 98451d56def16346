"""Agreement of a chunk with the last one: weights, the paper's update, and every sampler."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.toy_policy import ACTIONS, HORIZON, UNITS, batch_of, make

from dpjax.core.errors import UserError
from dpjax.core.types import ACTION
from dpjax.diffusion import agreement, parameterization, samplers, sampling, schedules
from dpjax.diffusion.agreement import Agreement
from dpjax.diffusion.parameterization import Estimate
from dpjax.diffusion.schedules import Level
from dpjax.policies import conditioning

STEPS = 10
PATH = schedules.cosine(100).path(STEPS)


def known_until(end, steps=10, batch=1):
    return jnp.broadcast_to(jnp.arange(steps) < end, (batch, steps))


def test_soft_weights_are_equation_a():
    c = np.array([0.8, 0.6, 0.4, 0.2])
    falling = c * (np.exp(c) - 1) / (np.e - 1)
    got = agreement.soft_weights(known_until(6), jnp.array([2]), observed=1)
    np.testing.assert_allclose(got[0], [1, 1, *falling, 0, 0, 0, 0], rtol=1e-6)
    # With To = 3 the same weights begin two steps later, and the past counts like the committed.
    got = agreement.soft_weights(known_until(8), jnp.array([2]), observed=3)
    np.testing.assert_allclose(got[0], [1, 1, 1, 1, *falling, 0, 0], rtol=1e-6)


def test_unknown_steps_weigh_nothing_and_each_row_has_its_own_delay():
    known = jnp.stack([known_until(4)[0], known_until(0)[0], known_until(6)[0]])
    committed = jnp.array([6, 2, 0])
    hard = agreement.hard_weights(known, committed, observed=2)
    np.testing.assert_array_equal(hard.sum(1), [4, 0, 1])
    soft = agreement.soft_weights(known, committed, observed=2)
    assert not soft[1].any() and (soft[0] == hard[0]).all()
    assert soft[2, 0] == 1 and 0 < soft[2, 5] < soft[2, 1] < 1


# The paper's update, and other schedules -------------------------------------------------------


def velocity(x):
    """A made-up network that mixes all entries of x [B, 10, 2]."""
    mixing = jnp.asarray(np.random.default_rng(0).normal(size=(20, 20)) / 5, jnp.float32)
    return jnp.tanh(x.reshape(len(x), -1) @ mixing).reshape(x.shape)


def made_up(seed=1):
    """(x, last, weight), all [3, 10, 2]; the last chunk ends after 6 steps."""
    rng = np.random.default_rng(seed)
    x, last = jnp.asarray(rng.normal(size=(2, 3, 10, 2)), jnp.float32)
    known = known_until(6, batch=3)
    weight = agreement.soft_weights(known, jnp.full(3, 2), observed=1)[..., None]
    return x, jnp.where(known[..., None], last, 0.0), jnp.broadcast_to(weight, x.shape)


def published_step(x, last, weight, tau, length, beta):
    """One Euler step of Black et al. 2025, algorithm 1, whose time tau ends at the data."""
    denoise = lambda x: (x + (1 - tau) * -velocity(x), -velocity(x))
    x1, vjp, v = jax.vjp(denoise, x, has_aux=True)
    correction = vjp(weight * (last - x1))[0]
    r2 = (1 - tau) ** 2 / (tau**2 + (1 - tau) ** 2)
    scale = beta if tau == 0 else min(beta, (1 - tau) / (tau * r2))
    return x + length * (v + scale * correction)


@pytest.mark.parametrize("num_steps", [5, 10])
def test_rtc_is_the_published_update_of_a_flow(num_steps):
    path = schedules.rectified_flow(100).path(num_steps)
    x, last, weight = made_up()
    predict = lambda x, level: parameterization.estimate("velocity", velocity(x), x, level)
    guided = agreement.rtc(predict, last, weight, beta=5.0, std=1.0)
    for i in range(num_steps):
        now, to = path.now[i], path.to[i]
        got = sampling.step(samplers.ddim(), x, guided(x, now), now, to, None, jnp.inf)
        tau = 1 - float(now.sigma)
        want = published_step(x, last, weight, tau, float(now.sigma - to.sigma), beta=5.0)
        np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("method", agreement.METHODS)
@pytest.mark.parametrize("alpha", [0.2, 0.5, 0.8])
def test_levels_of_one_signal_to_noise_ratio_give_one_answer(method, alpha):
    x, last, soft = made_up()
    hard = (soft == 1).astype(jnp.float32)
    guide = lambda predict: agreement.METHODS[method](Agreement(method), predict, last, soft, hard)
    flow = Level(jnp.float32(0), jnp.float32(alpha), jnp.float32(1 - alpha))
    size = float(np.hypot(alpha, 1 - alpha))
    preserving = Level(jnp.float32(0), flow.alpha / size, flow.sigma / size)

    def of(scale):  # a network of x_0 that is told x in the flow's units
        x0 = lambda x: jnp.tanh(velocity(x * scale))
        return lambda x, level: parameterization.estimate("sample", x0(x), x, level)

    a = guide(of(1.0))(x, flow)
    b = guide(of(size))(x / size, preserving)
    np.testing.assert_allclose(a.x0, b.x0, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(a.eps, b.eps, rtol=1e-5, atol=2e-5)
    # Equation (1) of `schedules` still holds, and something was moved.
    np.testing.assert_allclose(flow.alpha * a.x0 + flow.sigma * a.eps, x, atol=2e-5)
    assert jnp.abs(a.x0 - of(1.0)(x, flow).x0).max() > 0.01


# In a policy ------------------------------------------------------------------------------------

SAMPLERS = {
    "ddpm": samplers.ddpm(),
    "ddim": samplers.ddim(),
    "eta": samplers.ddim(0.5),
    "2m": samplers.dpm_solver(),
    "heun": samplers.heun(),
}
CASES = [(name, "line") for name in SAMPLERS] + [("ddim", "blend"), ("ddim", "rtc")]


def chunks(agree, last, committed=None, **options):
    """Chunks [3, Tp, Da] of the toy policy, in network units."""
    policy = make(agree=agree, **options)
    batch = batch_of(range(3))
    params = policy.init(jax.random.key(0), batch)
    optional = () if last is None else (UNITS.restore(ACTION, last), committed)
    actions = jax.jit(policy.sample)(params, jax.random.key(1), batch.obs, *optional)
    return np.asarray(UNITS.normalize({ACTION: actions})[ACTION])


@functools.cache
def free_chunks(sampler, prediction_type):
    return chunks(None, None, sampler=SAMPLERS[sampler], prediction_type=prediction_type)


def last_chunk():
    """[3, Tp, Da]: the end is unknown, and for example 1 everything."""
    last = 0.3 * np.random.default_rng(5).normal(size=(3, HORIZON, ACTIONS))
    last[:, 3:] = np.nan
    last[1] = np.nan
    return jnp.asarray(last, jnp.float32)


@pytest.mark.parametrize(("sampler", "method"), CASES)
def test_every_sampler_agrees_and_an_example_without_a_chunk_is_as_before(sampler, method):
    options = {"sampler": SAMPLERS[sampler], "prediction_type": "v"}
    agreed = chunks(Agreement(method), last_chunk(), jnp.array([2, 2, 0]), **options)
    free = free_chunks(sampler, "v")
    np.testing.assert_allclose(agreed[1], free[1], atol=1e-5)
    error = lambda x: np.abs(x[0, :3] - np.asarray(last_chunk())[0, :3]).mean()
    assert np.isfinite(agreed).all() and error(agreed) < error(free)


@pytest.mark.parametrize("prediction_type", parameterization.PREDICTION_TYPES)
def test_every_prediction_type_agrees(prediction_type):
    options = {"sampler": SAMPLERS["ddim"], "prediction_type": prediction_type}
    agreed = chunks(Agreement("line"), last_chunk(), jnp.full(3, 2), **options)
    assert np.isfinite(agreed).all()
    assert np.abs(agreed - free_chunks("ddim", prediction_type))[0].max() > 1e-3


def test_a_share_of_the_path_agrees_and_the_rest_does_not():
    x = jnp.ones((1, 10, 2))
    last = jnp.zeros_like(x)
    predict = lambda x, level: Estimate(x, x)
    settings = Agreement("blend", share=0.4)
    guided = agreement.agree(
        settings, predict, last, jnp.array([10]), observed=1, size=2, path=PATH
    )
    agrees = [float(guided(x, PATH.now[i]).x0.max()) == 0 for i in range(STEPS)]
    assert agrees == [True] * 4 + [False] * 6
    # Rounding inside of a compiled loop moves no step to the other side.
    compiled = jax.lax.map(lambda level: guided(x, level).x0.max() == 0, PATH.now)
    assert compiled.tolist() == agrees


def test_a_warm_start_and_an_agreement_work_together():
    last = 0.3 * jnp.ones((3, HORIZON, ACTIONS))
    both = chunks(Agreement("blend"), last, jnp.full(3, HORIZON), warm_start=0.5)
    # All steps are committed, so the blend is the last chunk itself, whatever the start.
    np.testing.assert_allclose(both, last, atol=1e-5)
    warm = chunks(None, last, warm_start=0.5)
    assert np.abs(warm - last).max() > 0.01


def test_what_is_denoised_beside_the_actions_is_not_guided():
    x = jnp.ones((2, 10, 5))
    predict = lambda x, level: Estimate(x, x)
    guided = agreement.agree(
        Agreement("blend"),
        predict,
        jnp.zeros((2, 10, 2)),
        jnp.full(2, 10),
        observed=1,
        size=5,
        path=PATH,
    )
    x0 = guided(x, PATH.now[0]).x0
    assert not x0[..., :2].any() and (x0[..., 2:] == 1).all()


def test_an_inpainting_policy_agrees_too():
    options = {
        "sampler": SAMPLERS["ddim"],
        "prediction_type": "v",
        "conditioning": conditioning.inpaint(2),
    }
    free = chunks(None, None, **options)
    error = lambda x: np.abs(x[0, :3] - np.asarray(last_chunk())[0, :3]).mean()
    agreed = chunks(Agreement("line"), last_chunk(), jnp.array([2, 2, 0]), **options)
    assert error(agreed) < 0.01 < error(free)
    np.testing.assert_allclose(agreed[1], free[1], atol=1e-5)


def test_an_unknown_method_is_refused():
    with pytest.raises(UserError, match="agree='lime' is unknown.*line"):
        chunks(Agreement("lime"), last_chunk())
