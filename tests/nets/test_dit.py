"""The adaLN-Zero denoiser: it starts as zero, comes in two parts, and learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dpjax.core.types import example_keys
from dpjax.nets.dit import DiT


@pytest.fixture(scope="module")
def network():
    """(network, initial params, params with every leaf moved, x, t, cond)."""
    net = DiT(features=2, horizon=4, layers=2, heads=2, width=8, drop=0.3)
    x = jax.random.normal(jax.random.key(0), (3, 4, 2))
    t, cond = jnp.array([0, 5, 5]), jax.random.normal(jax.random.key(1), (3, 2, 3))
    params = net.init(jax.random.key(2), x, t, cond)
    flat, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(3), len(flat))
    moved = [leaf + 0.3 * jax.random.normal(key, leaf.shape) for leaf, key in zip(flat, keys)]
    return net, params, jax.tree.unflatten(tree, moved), x, t, cond


def test_every_block_starts_as_the_identity_and_the_output_as_zero(network):
    net, params, _, x, t, cond = network
    y, inside = net.apply(params, x, t, cond, capture_intermediates=True)
    assert not y.any()
    tokens = inside["intermediates"]["action_in"]["__call__"][0]
    tokens = tokens + params["params"]["position"]
    for i in range(2):
        np.testing.assert_array_equal(inside["intermediates"][f"blocks_{i}"]["__call__"][0], tokens)


def test_a_chunk_is_prepared_once_for_all_levels(network):
    net, _, params, x, t, cond = network
    context = net.apply(params, cond, jnp.array([0, 5]), method=net.prepare)
    at_5 = context.replace(per_level=context.per_level[1])
    got = net.apply(params, x, at_5, method=net.denoise)
    np.testing.assert_allclose(got[1:], net.apply(params, x, t, cond)[1:], rtol=1e-5, atol=1e-5)
    assert abs(got[0] - net.apply(params, x, t, cond)[0]).max() > 1e-2


@pytest.mark.slow
def test_the_output_depends_on_every_input(network):
    net, _, params, x, t, cond = network
    of_x, of_cond = jax.jacobian(lambda x, cond: net.apply(params, x, t, cond), (0, 1))(x, cond)
    for i in range(3):
        assert np.all(np.abs(of_x[i, :, :, i]).max((0, 1)) > 0)
        assert np.all(np.abs(of_cond[i, :, :, i]).max((0, 1)) > 0)
    other = net.apply(params, x, t + 40, cond)
    assert abs(other - net.apply(params, x, t, cond)).max() > 1e-2


@pytest.mark.slow
def test_dropout_depends_on_the_examples_key_alone(network):
    net, _, params, x, t, cond = network
    keys = example_keys(jax.random.key(7), jnp.arange(3))
    context = net.apply(params, cond, t, keys, method=net.prepare)
    drop = lambda x, context, keys: net.apply(params, x, context, keys, method=net.denoise)
    all_examples = drop(x, context, keys)
    last = jax.tree.map(lambda leaf: leaf[2:], (x, context, keys))
    np.testing.assert_allclose(drop(*last), all_examples[2:], rtol=1e-5, atol=1e-6)
    assert abs(all_examples - drop(x, context, None)).max() > 1e-2


def test_it_learns_what_depends_on_time_and_observation(network):
    net, params, _, x, t, cond = network
    target = jnp.sin(x + cond[:, :1, :2] + t[:, None, None])
    tx = optax.adam(1e-2)

    def step(carry, _):
        params, opt = carry
        loss, grads = jax.value_and_grad(
            lambda params: jnp.mean((net.apply(params, x, t, cond) - target) ** 2)
        )(params)
        updates, opt = tx.update(grads, opt)
        return (optax.apply_updates(params, updates), opt), loss

    _, losses = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), length=200))(params)
    assert losses[-1] < 0.01 * losses[0]
