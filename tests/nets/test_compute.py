"""A training step in parts, in bfloat16 or with remat: its numbers change little."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.jaxprs import equations
from support.networks import (
    BFLOAT16,
    NAMES,
    batch_of,
    distance,
    loss_and_gradient,
    params_of,
    policy_of,
)

from dpjax.nets.encoders import Concat
from dpjax.policies import base
from dpjax.training import state
from dpjax.training.step import train_step

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["unet1d", "transformer", "image"])
def test_a_step_in_parts_is_the_same_step(name):
    policy = policy_of(name)
    tx = optax.sgd(1.0)
    before = state.create(params_of(name), tx)

    def after(parts):
        options = dict(ema_power=0.75, ema_max=0.9999, accumulate=parts)
        step = jax.jit(functools.partial(train_step, policy, tx, **options))
        end, metrics = step(before, jax.random.key(1), batch_of(name))
        moved = jax.tree.map(jnp.subtract, end.params["denoiser"], before.params["denoiser"])
        return jax.device_get((moved, metrics))

    undivided, metrics = after(1)
    parts, again = after(4)
    assert distance(parts, undivided) < (3e-6 if name == "image" else 1e-6)  # float rounding
    np.testing.assert_allclose(again["loss"], metrics["loss"], rtol=1e-6)
    np.testing.assert_allclose(again["grad_norm"], metrics["grad_norm"], rtol=1e-5)


def products(jaxpr):
    """[(primitive, dtypes of the operands, operands)] of every product, however deep."""
    entries = []
    for eqn in equations(jaxpr):
        if eqn.primitive.name in ("dot_general", "conv_general_dilated"):
            inputs = [x.aval for x in eqn.invars]
            dtypes = {str(x.dtype) for x in inputs}
            entries.append((eqn.primitive.name, dtypes, inputs))
    return entries


@pytest.mark.parametrize("name", NAMES)
def test_the_products_of_the_networks_are_in_bfloat16(name):
    policy = policy_of(name, **BFLOAT16)
    batch = batch_of(name)
    call = lambda params: policy.loss(params, jax.random.key(2), batch)[0]
    entries = products(jax.make_jaxpr(jax.grad(call))(params_of(name)).jaxpr)
    # The mean of a spatial softmax is a product too, with coordinates in place of weights.
    means = lambda inputs: any(x.ndim == 1 and len(x.shape) == 1 for x in inputs)
    wrong = [entry for entry in entries if entry[1] != {"bfloat16"} and not means(entry[2])]
    assert len(entries) > 10 and not wrong, wrong[:3]


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_moves_loss_and_gradient_by_its_rounding(name):
    loss, grads = loss_and_gradient(name)
    rounded, again = loss_and_gradient(name, **BFLOAT16)
    assert {leaf.dtype for leaf in jax.tree.leaves((rounded, again))} == {np.dtype("float32")}
    assert 0 < abs(rounded / loss - 1) < 0.02
    assert 1e-4 < distance(again, grads) < 0.1


def test_a_policy_learns_and_samples_in_bfloat16():
    policy = policy_of("unet1d", **BFLOAT16)
    tx = optax.adam(3e-3)
    batch = batch_of("unet1d")
    step = functools.partial(train_step, policy, tx, ema_power=0.75, ema_max=0.9999)
    many = jax.jit(
        lambda start: jax.lax.scan(
            lambda state, _: step(state, jax.random.key(1), batch), start, length=60
        )
    )
    end, metrics = many(state.create(params_of("unet1d"), tx))
    assert metrics["loss"][-10:].mean() < 0.85 * metrics["loss"][:5].mean()
    floats = [x for x in jax.tree.leaves(end) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert {x.dtype for x in floats} == {jnp.dtype("float32")}
    actions = jax.jit(policy.sample)(end.ema, jax.random.key(3), batch.obs)
    exact = jax.jit(policy_of("unet1d").sample)(end.ema, jax.random.key(3), batch.obs)
    assert actions.dtype == jnp.float32
    assert 0 < np.abs(actions - exact).max() < 0.2


def test_an_encoder_without_weights_keeps_all_bits():
    encoder = base.encoder_of(Concat(("a",)), dtype=jnp.bfloat16)
    x = jnp.full((1, 1, 1), 1.001)
    np.testing.assert_array_equal(encoder.apply({}, {"a": x}), x)


@pytest.mark.parametrize("name", NAMES)
def test_blocks_computed_again_give_the_same_gradient(name):
    """With dropout, where there is any: its masks are drawn again too."""
    again = {"compute.remat": True}
    policy = policy_of(name, **again)
    batch = batch_of(name)
    same = jax.eval_shape(policy.init, jax.random.key(0), batch)
    assert jax.tree.structure(same) == jax.tree.structure(params_of(name))
    call = lambda params: policy.loss(params, jax.random.key(2), batch)[0]
    text = str(jax.make_jaxpr(call)(params_of(name)))
    assert "checkpoint" in text or "remat" in text
    loss, grads = loss_and_gradient(name)
    rerun, regrads = loss_and_gradient(name, **again)
    np.testing.assert_allclose(rerun, loss, rtol=1e-6)
    assert distance(regrads, grads) < 3e-6
