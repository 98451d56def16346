"""The diffusion policy: what its loss and its samples promise, whatever the network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.jaxprs import equations
from support.toy_policy import ACTIONS, HORIZON, UNITS, batch_of, make, perceptron

from dpjax.core.errors import UserError
from dpjax.core.types import ACTION, split_keys
from dpjax.diffusion import sampling, schedules
from dpjax.nets.unet1d import UNet1D
from dpjax.policies import base


def unet():
    net = UNet1D(features=ACTIONS, widths=(8, 16), kernel_size=3, groups=4, time_features=8)
    return base.denoiser_of(net)


@functools.cache
def params_and_loss(mask_padding):
    """(params, jitted loss) of the toy policy."""
    policy = make(mask_padding=mask_padding)
    return policy.init(jax.random.key(0), batch_of(range(6))), jax.jit(policy.loss)


def test_init_gives_the_three_items():
    params, _ = params_and_loss(False)
    assert set(params) == {"encoder", "denoiser", "normalizer"}
    assert params["normalizer"] is UNITS


@pytest.mark.parametrize("mask_padding", [True, False])
def test_the_loss_is_a_sum_over_examples(mask_padding):
    params, loss = params_and_loss(mask_padding)
    rng = jax.random.key(1)
    total, sums = loss(params, rng, batch_of(range(6)))
    parts = [loss(params, rng, batch_of(half)) for half in (range(3), range(3, 6))]
    np.testing.assert_allclose(total, sum(part for part, _ in parts), rtol=1e-5)
    np.testing.assert_allclose(sums["weight"], sum(s["weight"] for _, s in parts))


def test_masked_steps_do_not_count():
    params, loss = params_and_loss(True)
    batch = batch_of(range(6))
    total, sums = loss(params, jax.random.key(1), batch)
    assert sums["weight"] == batch.mask.sum()
    # An example of padding only adds nothing at all, whatever its actions are.
    empty = batch.mask.at[2].set(0)
    spoilt = batch.actions.at[2].set(1e6)
    others = [index for index in range(6) if index != 2]
    got, sums = loss(params, jax.random.key(1), batch.replace(mask=empty, actions=spoilt))
    want, of_others = loss(params, jax.random.key(1), batch_of(others))
    np.testing.assert_allclose(got, want, rtol=1e-5)
    np.testing.assert_allclose(sums["weight"], of_others["weight"])


def test_the_error_of_a_masked_step_does_not_count():
    # A network that always predicts 0: each step's error is its clean actions.
    zero = perceptron()._replace(apply=lambda params, x, context, keys: jnp.zeros_like(x))
    batch = batch_of(range(6))
    both = [make(zero, prediction_type="sample", mask_padding=mask) for mask in (True, False)]
    params = both[0].init(jax.random.key(0), batch)
    rng = jax.random.key(1)
    losses = jax.jit(lambda: [policy.loss(params, rng, batch) for policy in both])
    (masked, counted), (full, every) = losses()
    x0 = UNITS.normalize({ACTION: batch.actions})[ACTION]
    error = (x0**2).mean(-1)
    np.testing.assert_allclose(masked, (error * batch.mask).sum(), rtol=1e-5)
    np.testing.assert_allclose(full, error.sum(), rtol=1e-5)
    assert counted["weight"] == batch.mask.sum() and every["weight"] == 6 * HORIZON


def test_training_noise_differs_between_examples_and_keys():
    keys = jax.random.split(jax.random.key(0), 64)
    draw = jax.jit(
        lambda keys: sampling.draw(schedules.cosine(100), *split_keys(keys, 2), (HORIZON, ACTIONS))
    )
    level, eps = draw(keys)
    assert len(np.unique(level.t)) > 30 and len(np.unique(eps)) == eps.size
    again, same = draw(jax.random.split(jax.random.key(1), 64).at[3].set(keys[5]))
    assert again.t[3] == level.t[5]
    np.testing.assert_array_equal(same[3], eps[5])


def test_a_sample_does_not_depend_on_the_other_examples():
    params, _ = params_and_loss(False)
    sample = jax.jit(make().sample)
    obs = batch_of([1, 2, 3]).obs
    other_obs = batch_of([7, 2, 9]).obs
    keys = jax.random.split(jax.random.key(2), 3)
    first = sample(params, keys, obs)
    second = sample(params, keys, other_obs)
    np.testing.assert_allclose(first[1], second[1], rtol=1e-6)
    assert abs(first - second)[0].max() > 1e-2
    other = sample(params, keys.at[0].set(jax.random.key(9)), obs)
    np.testing.assert_allclose(first[1:], other[1:], rtol=1e-6)
    assert abs(first - other)[0].max() > 1e-2
    one_key = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(3), jnp.arange(3))
    np.testing.assert_array_equal(
        sample(params, jax.random.key(3), obs), sample(params, one_key, obs)
    )


def count(jaxpr, *names):
    return sum(equation.primitive.name in names for equation in equations(jaxpr))


@pytest.fixture(scope="module")
def traced():
    """(params, {S: the jaxpr of a U-Net policy's sample})."""
    batch = batch_of([0, 1, 2])
    params = jax.eval_shape(make(unet()).init, jax.random.key(0), batch)
    at = lambda n: jax.make_jaxpr(make(unet(), n).sample)(params, jax.random.key(0), batch.obs)
    return params, {n: at(n).jaxpr for n in (5, 50)}


def test_sampling_is_one_scan_whatever_the_number_of_steps(traced):
    sizes = []
    for num_steps, jaxpr in traced[1].items():
        assert count(jaxpr, "scan") == 1 and count(jaxpr, "while") == 0
        loop = next(e for e in equations(jaxpr) if e.primitive.name == "scan")
        assert loop.params["length"] == num_steps
        sizes.append(sum(1 for _ in equations(jaxpr)))
    assert sizes[0] == sizes[1]


def test_what_depends_on_the_observation_alone_is_computed_outside_the_loop(traced):
    params, jaxprs = traced
    loop = next(e for e in equations(jaxprs[50]) if e.primitive.name == "scan")
    denoiser = unet()
    batch = batch_of([0, 1, 2])
    products = ("dot_general", "conv_general_dilated")
    context = jax.eval_shape(denoiser.prepare, params["denoiser"], batch.obs["state"], jnp.array(0))
    alone = jax.make_jaxpr(denoiser.apply)(params["denoiser"], batch.actions, context)
    inside = count(loop.params["jaxpr"].jaxpr, *products)
    assert inside == count(alone.jaxpr, *products) > 0
    assert count(jaxprs[50], *products) == inside + 4  # time_in, time_out, film's two halves


def test_a_prediction_type_that_cannot_be_sampled_is_refused_before_anything_runs():
    with pytest.raises(UserError, match="'eps' is unknown"):
        make(prediction_type="eps")
    with pytest.raises(UserError, match="num_steps=101"):
        make(num_steps=101)


@pytest.mark.parametrize("prediction_type", ["epsilon", "sample"])
def test_a_tiny_policy_learns_one_trajectory_and_returns_it(prediction_type):
    one = batch_of([3])
    actions = UNITS.restore(ACTION, jnp.tanh(UNITS.normalize({ACTION: one.actions})[ACTION]))
    repeat = lambda leaf: jnp.repeat(leaf, 64, axis=0)
    batch = jax.tree.map(repeat, one.replace(actions=actions)).replace(index=jnp.arange(64))
    policy = make(prediction_type=prediction_type)
    params = policy.init(jax.random.key(0), batch)
    tx = optax.adam(optax.cosine_decay_schedule(2e-2, 600))

    def step(carry, rng):
        weights, state = carry
        loss = lambda w: policy.loss({**params, "denoiser": w}, rng, batch)[0] / 64 / HORIZON
        value, grads = jax.value_and_grad(loss)(weights)
        updates, state = tx.update(grads, state)
        return (optax.apply_updates(weights, updates), state), value

    keys = jax.random.split(jax.random.key(1), 600)
    start = (params["denoiser"], tx.init(params["denoiser"]))
    (weights, _), losses = jax.jit(lambda start: jax.lax.scan(step, start, keys))(start)
    assert losses[-50:].mean() < losses[:5].mean() / 5
    obs = jax.tree.map(lambda leaf: leaf[:8], batch.obs)
    got = jax.jit(policy.sample)({**params, "denoiser": weights}, jax.random.key(2), obs)
    error = (got - actions) / UNITS.scale[ACTION]
    assert jnp.sqrt(jnp.mean(error**2)) < 0.1  # in units of the network, [-1, 1]
