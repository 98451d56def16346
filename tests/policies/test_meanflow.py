"""MeanFlow: its loss is the MeanFlow identity, and one step lands on the modes, not between."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dpjax.core.normalizer import Normalizer
from dpjax.core.types import ACTION, Batch, Context, split_keys
from dpjax.diffusion import samplers, sampling, schedules
from dpjax.diffusion.agreement import Agreement
from dpjax.nets.encoders import Concat
from dpjax.nets.unet1d import UNet1D
from dpjax.policies import base, conditioning, meanflow
from dpjax.policies import diffusion as policies
from dpjax.policies.base import Denoiser

K = 100
UNITS = Normalizer(
    offset={"state": jnp.zeros(1), ACTION: jnp.zeros(1)},
    scale={"state": jnp.ones(1), ACTION: jnp.ones(1)},
)
ENCODER = base.encoder_of(Concat(("state",)))


def perceptron(times, width=64):
    """A denoiser of three layers for x [B, 1, 1] that is given `times` times."""
    shapes = {"in": (1 + 4 * times, width), "mid": (width, width), "out": (width, 1)}

    def init(rng, x, t, cond):
        keys = jax.random.split(rng, len(shapes))
        draw = lambda key, shape: jax.random.normal(key, shape) * shape[0] ** -0.5
        return {name: draw(key, shapes[name]) for name, key in zip(shapes, keys)}

    def prepare(params, cond, t, keys=None):
        u = t.reshape(*t.shape[:1], -1) / K  # [S, times]
        features = jnp.concatenate([u, jnp.cos(3 * u), jnp.sin(3 * u), jnp.ones_like(u)], -1)
        return Context(per_level=features @ params["in"][1:], shared=0 * cond[:, 0])

    def apply(params, x, context, keys=None):
        h = x[:, 0] @ params["in"][:1] + context.per_level + context.shared
        h = jnp.tanh(jnp.tanh(h) @ params["mid"])
        return (h @ params["out"])[:, None]

    return Denoiser(init, prepare, apply)


def mean_flow(denoiser, num_steps=1, **options):
    sizes = {"horizon": 1, "num_steps": num_steps, "num_levels": K}
    return meanflow.meanflow_policy(ENCODER, denoiser, UNITS, **{**sizes, **options})


def rectified_flow(denoiser, num_steps=1):
    return policies.diffusion_policy(
        *(ENCODER, denoiser, schedules.rectified_flow(K), UNITS),
        **{"horizon": 1, "num_steps": num_steps, "sampler": samplers.ddim()},
        prediction_type="velocity",
    )


def two_modes(batch=256):
    """Actions 0.8 and -0.8, half and half, after one and the same observation."""
    index = jnp.arange(batch, dtype=jnp.int32)
    actions = jnp.where(index % 2, 0.8, -0.8)[:, None, None]
    obs = {"state": jnp.zeros((batch, 1, 1))}
    return Batch(obs, actions, jnp.ones((batch, 1)), index)


@functools.partial(jax.jit, static_argnums=(0, 1))
def learn(policy, steps, rng):
    batch = two_modes()
    params = policy.init(rng, batch)
    tx = optax.adam(optax.cosine_decay_schedule(5e-3, steps))

    def step(carry, key):
        weights, state = carry
        grads = jax.grad(lambda w: policy.loss({**params, "denoiser": w}, key, batch)[0] / 256)(
            weights
        )
        updates, state = tx.update(grads, state)
        return (optax.apply_updates(weights, updates), state), None

    start = (params["denoiser"], tx.init(params["denoiser"]))
    (weights, _), _ = jax.lax.scan(step, start, jax.random.split(rng, steps))
    return {**params, "denoiser": weights}


def share_on_the_modes(policy, params):
    """Shares of 1,000 samples within 0.3 of a mode: [of 0.8, of -0.8]."""
    obs = {"state": jnp.zeros((1000, 1, 1))}
    got = jax.jit(policy.sample)(params, jax.random.key(5), obs).ravel()
    return [float(jnp.mean(abs(got - mode) < 0.3)) for mode in (0.8, -0.8)]


def test_one_step_lands_on_the_modes_not_between():
    denoiser = perceptron(2)
    policy = mean_flow(denoiser)
    params = learn(policy, 3000, jax.random.key(0))
    for num_steps in (1, 2, 4):
        shares = share_on_the_modes(mean_flow(denoiser, num_steps), params)
        assert sum(shares) > 0.85 and min(shares) > 0.35, (num_steps, shares)


def test_one_step_of_a_rectified_flow_lands_between_the_modes():
    # The toy data is not too easy: one Euler step goes to the mean of the data.
    policy = rectified_flow(perceptron(1))
    params = learn(policy, 1000, jax.random.key(0))
    assert sum(share_on_the_modes(policy, params)) < 0.1


@pytest.mark.parametrize("warm_start", [0.0, 0.5])
@pytest.mark.parametrize("num_steps", [1, 4])
def test_few_steps_agree_by_blending(num_steps, warm_start):
    policy = mean_flow(perceptron(2), num_steps, agree=Agreement("blend"), warm_start=warm_start)
    batch = two_modes(8)
    params = policy.init(jax.random.key(0), batch)
    free = policy.sample(params, jax.random.key(1), batch.obs)
    # The only step is committed, and known for the first four examples.
    last = jnp.full(free.shape, 0.37).at[4:].set(jnp.nan)
    sample = jax.jit(policy.sample)
    agreed = sample(params, jax.random.key(1), batch.obs, last, jnp.full(8, 1, jnp.int32))
    np.testing.assert_allclose(agreed[:4], last[:4], atol=1e-6)
    np.testing.assert_allclose(agreed[4:], free[4:], atol=1e-6)
    assert jnp.abs(free[:4] - last[:4]).min() > 0.01


def test_without_intervals_and_weights_it_is_flow_matchings_loss():
    # r = t: the derivative has weight 0 and the target is v.
    batch = two_modes(8)
    rng = jax.random.key(2)
    policy = mean_flow(perceptron(2), share=0.0, power=0.0)
    params = policy.init(jax.random.key(0), batch)
    total, sums = policy.loss(params, rng, batch)

    schedule = meanflow.intervals(K, 0.0)
    keys = split_keys(jax.vmap(jax.random.fold_in, (None, 0))(rng, batch.index), 4)
    level, eps = sampling.draw(schedule, keys[0], keys[1], (1, 1))
    t = level.sigma[:, None, None]
    net, weights = perceptron(2), params["denoiser"]
    times = jnp.stack([K * level.sigma, jnp.zeros(8)], -1)
    z = (1 - t) * batch.actions + t * eps
    y = net.apply(weights, z, net.prepare(weights, batch.obs["state"], times))
    want = jnp.square(y - (eps - batch.actions)).sum()
    np.testing.assert_allclose(total, want, rtol=1e-5)
    assert sums["weight"] == 8


def test_the_derivative_in_the_loss_equals_finite_differences():
    # An example's error is u - (v - (t - r) du/dt), with du/dt along (v, 1) and r fixed.
    net = perceptron(2)
    batch = two_modes(64)
    rng = jax.random.key(2)
    policy = mean_flow(net, share=1.0, power=0.0)
    params = policy.init(jax.random.key(0), batch)
    total, _ = policy.loss(params, rng, batch)

    keys = split_keys(jax.vmap(jax.random.fold_in, (None, 0))(rng, batch.index), 4)
    level, eps = sampling.draw(meanflow.intervals(K, 1.0), keys[0], keys[1], (1, 1))
    t = level.sigma
    r = level.sigma - level.t[:, 1] / K
    v = eps - batch.actions

    def u(t):
        z = (1 - t)[:, None, None] * batch.actions + t[:, None, None] * eps
        times = K * jnp.stack([t, t - r], -1)
        weights = params["denoiser"]
        return net.apply(weights, z, net.prepare(weights, batch.obs["state"], times))

    slope = (u(t + 1e-2) - u(t - 1e-2)) / 2e-2
    want = jnp.square(u(t) - v + (t - r)[:, None, None] * slope).sum()
    np.testing.assert_allclose(total, want, rtol=1e-2)


def test_a_quarter_of_the_examples_have_an_interval():
    level = meanflow.intervals(K, 0.25).draw(jax.random.key(0), (4000,))
    t = level.t[:, 0]
    span = level.t[:, 1]
    assert abs((span > 0).mean() - 0.25) < 0.03  # 4 standard deviations
    assert (span >= 0).all() and (span <= t).all()
    np.testing.assert_allclose(t, K * level.sigma, rtol=1e-6)


def test_a_steps_interval_ends_where_it_leads():
    now, to = meanflow.intervals(K, 0.25).path(4)
    np.testing.assert_allclose(
        now.t, K * jnp.array([[1, 0.25], [0.75, 0.25], [0.5, 0.25], [0.25, 0.25]])
    )
    np.testing.assert_allclose(to.sigma, [0.75, 0.5, 0.25, 0])


@pytest.mark.parametrize("how", [conditioning.on_features, conditioning.inpaint(1)])
def test_the_unet_is_given_two_times_and_learns_from_both(how):
    inpainted = how is not conditioning.on_features
    unet = UNet1D(2 if inpainted else 1, (8,), 3, 4, 8, times=2)
    policy = mean_flow(base.denoiser_of(unet), 2, horizon=4, conditioning=how, share=1.0)
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    batch = Batch({"state": draw(6, 4, 1)}, draw(6, 4, 1), jnp.ones((6, 4)), jnp.arange(6))

    def both(rng):
        params = policy.init(rng, batch)
        total = lambda weights: policy.loss({**params, "denoiser": weights}, rng, batch)[0]
        obs = {"state": batch.obs["state"][:, :1]} if inpainted else batch.obs
        return jax.grad(total)(params["denoiser"]), policy.sample(params, rng, obs)

    grads, actions = jax.jit(both)(jax.random.key(0))
    assert actions.shape == (6, 4, 1) and np.isfinite(actions).all()
    for name in ("time_in", "span_in", "span_out"):
        assert abs(grads[name]["kernel"]).max() > 0
