"""Toy networks and data whose samples are known: diffusers' names, closed forms."""

import jax
import jax.numpy as jnp

from dpjax.diffusion import parameterization, sampling

# {diffusers' name: ours}
PREDICTION_TYPES = {"epsilon": "epsilon", "sample": "sample", "v_prediction": "v"}


def toy_network(x, t):
    """The network of golden/samplers.npz."""
    return 0.5 * jnp.tanh(x) + t / 10_000


def toy_predictor(prediction_type):
    """`(x, level) -> Estimate` of the toy network."""
    return lambda x, level: parameterization.estimate(
        prediction_type, toy_network(x, level.t), x, level
    )


def noise(batch=3, shape=(4, 2), seed=0):
    """Start noise [B, Tp, Da], and keys [B]."""
    keys = jax.random.split(jax.random.key(seed), batch)
    return sampling.draw_noise(keys, shape), keys


def keys_of(x):
    """Keys [B], one per example of x [B, …]."""
    return jax.random.split(jax.random.key(0), len(x))


def gaussian_error(sampler, path, std=0.5):
    """|x - exact| at the end of the path from x = 1, for data from N(0, std²).

    The denoiser is linear, and the probability-flow ODE scales x by its marginal std.
    """
    marginal = lambda level: jnp.sqrt((level.alpha * std) ** 2 + level.sigma**2)

    def predict(x, level):
        x0 = level.alpha * std**2 / marginal(level) ** 2 * x
        return parameterization.Estimate(x0, (x - level.alpha * x0) / level.sigma)

    x = jnp.ones((1, 1, 1))
    want = marginal(path.to[-1]) / marginal(path.now[0])
    got = sampling.sample(predict, x, path, keys_of(x), sampler=sampler)
    return float(abs(got[0, 0, 0] - want))
