"""Conditioning: features per step, and inpainting, where known entries stay known."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import torch_unet

from dpjax.core.normalizer import Normalizer
from dpjax.core.types import ACTION, Batch, Context
from dpjax.diffusion import samplers, schedules
from dpjax.nets.encoders import Concat
from dpjax.policies import base
from dpjax.policies import diffusion as policies
from dpjax.policies.base import Denoiser
from dpjax.policies.conditioning import inpaint

TO, TP = 2, 4


def test_output_and_gradients_equal_the_authors(golden):
    arrays = golden("dp_unet1d_inpainting")
    meta = json.loads(str(arrays["meta"]))
    weights = {key[6:]: value for key, value in arrays.items() if key.startswith("param/")}
    params = jax.tree.map(jnp.asarray, torch_unet.params_from(weights, meta))
    net, x = torch_unet.network(meta), jnp.asarray(arrays["in/sample"])
    t, nothing = jnp.asarray(arrays["in/timestep"]), jnp.zeros((len(x), 1, 0))

    def loss(params):
        y = net.apply({"params": params}, x, t, nothing)
        return jnp.mean(y**2), y

    grads, y = jax.jit(jax.grad(loss, has_aux=True))(params)
    np.testing.assert_allclose(y, arrays["out"], rtol=1e-5, atol=1e-5)
    want = {key[9:]: value for key, value in arrays.items() if key.startswith("gradnorm/")}
    got = torch_unet.norms(jax.device_get(grads), meta)
    assert got.keys() == want.keys()
    for key in want:
        np.testing.assert_allclose(got[key], want[key], rtol=1e-4, atol=1e-7, err_msg=key)


def test_what_is_known_is_the_first_observations():
    actions, features = jnp.ones((3, TP, 2)), 5 + jnp.arange(3 * TP * 3.0).reshape(3, TP, 3)
    problem = inpaint(TO)(actions, features)
    assert problem.x0.shape == (3, TP, 5) and problem.cond.shape == (3, 1, 0)
    assert problem.known[:TO, 2:].all() and problem.known.sum() == TO * 3
    given = problem.insert_known(jnp.zeros((3, TP, 5)))
    np.testing.assert_array_equal(given[:, :TO, 2:], features[:, :TO])
    assert not given[:, :, :2].any() and not given[:, TO:].any()
    short = inpaint(TO)(jnp.zeros((3, TP, 2)), features[:, :TO])  # as while sampling
    np.testing.assert_array_equal(short.known, problem.known)
    np.testing.assert_array_equal(short.insert_known(jnp.zeros((3, TP, 5))), given)


def make(apply, **options):
    """A policy whose network is a function of its input."""
    units = Normalizer(
        {"state": jnp.zeros(3), ACTION: jnp.array([10.0, 0.0])},
        {"state": jnp.ones(3), ACTION: jnp.array([2.0, 1.0])},
    )
    denoiser = Denoiser(
        init=lambda rng, x, t, cond: {},
        prepare=lambda params, cond, t, keys=None: Context(per_level=t, shared=cond),
        apply=lambda params, x, context, keys=None: apply(x),
    )
    return policies.diffusion_policy(
        base.encoder_of(Concat(("state",))),
        denoiser,
        schedules.cosine(20),
        units,
        horizon=TP,
        sampler=samplers.ddim(),
        num_steps=5,
        prediction_type="sample",
        conditioning=inpaint(TO),
        **options,
    )


@pytest.fixture
def batch():
    draw = np.random.default_rng(0).uniform
    return Batch(
        obs={"state": jnp.asarray(draw(-0.9, 0.9, (6, TP, 3)), jnp.float32)},
        actions=jnp.asarray(draw(-0.9, 0.9, (6, TP, 2)), jnp.float32),
        mask=jnp.ones((6, TP)),
        index=jnp.arange(6, dtype=jnp.int32),
    )


def test_the_network_sees_what_is_known_and_only_that(batch):
    # It answers with the first observation it finds in its input, as action and all else.
    policy = make(lambda x: jnp.broadcast_to(x[:, :1, 2:3], x.shape))
    params = policy.init(jax.random.key(0), batch)
    obs = {"state": batch.obs["state"][:, :TO]}
    actions = policy.sample(params, jax.random.key(1), obs)
    first = obs["state"][:, :1, 0]
    np.testing.assert_allclose(actions[:, :, 0], jnp.tile(10 + 2 * first, (1, TP)), rtol=1e-5)
    later = policy.sample(params, jax.random.key(1), batch.obs)  # Tp steps: the rest is unseen
    np.testing.assert_array_equal(actions, later)


def test_what_is_known_has_no_loss_and_counts_in_the_mean(batch):
    policy = make(jnp.zeros_like)  # the error is x_0 itself
    params = policy.init(jax.random.key(0), batch)
    total, sums = policy.loss(params, jax.random.key(1), batch)
    actions = params["normalizer"].normalize({ACTION: batch.actions})[ACTION]
    error = (actions**2).sum() + (batch.obs["state"][:, TO:] ** 2).sum()
    np.testing.assert_allclose(total / sums["weight"], error / (6 * TP * 5), rtol=1e-5)
