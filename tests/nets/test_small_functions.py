"""Activations and embeddings that the networks share."""

import jax
import jax.numpy as jnp
import numpy as np

from dpjax.nets import layers


def test_mish_is_jaxs_at_every_size_and_its_gradient():
    x = jnp.asarray([-1e4, -100, -88, -30, -5, -1, -1e-3, 0, 1e-3, 1, 5, 19.9, 20.1, 88, 1e4])
    np.testing.assert_allclose(layers.mish(x), jax.nn.mish(x), rtol=1e-5, atol=1e-30)
    slope, want = jax.vmap(jax.grad(layers.mish))(x), jax.vmap(jax.grad(jax.nn.mish))(x)
    np.testing.assert_allclose(slope, want, rtol=1e-5, atol=1e-6)
    assert np.isfinite(layers.mish(x.astype(jnp.bfloat16))).all()


def test_sinusoidal_runs_from_a_full_turn_to_a_ten_thousandth():
    t = np.array([0, 1, 99])
    got = layers.sinusoidal(jnp.asarray(t), 8)
    frequency = np.array([1, 10 ** (-4 / 3), 10 ** (-8 / 3), 1e-4])
    want = np.concatenate([np.sin(t[:, None] * frequency), np.cos(t[:, None] * frequency)], -1)
    np.testing.assert_allclose(got, want, atol=1e-5)
