"""A toy diffusion policy: two numbers of action, a perceptron, and batches of random numbers."""

import jax
import jax.numpy as jnp
import numpy as np

from dpjax.core.normalizer import Normalizer
from dpjax.core.types import ACTION, Batch, Context
from dpjax.diffusion import samplers, schedules
from dpjax.nets.encoders import Concat
from dpjax.policies import base
from dpjax.policies import diffusion as policies
from dpjax.policies.base import Denoiser

HORIZON = 4  # Tp
ACTIONS = 2  # Da
UNITS = Normalizer(
    offset={"state": jnp.zeros(3), ACTION: jnp.array([100.0, -5.0])},
    scale={"state": jnp.ones(3), ACTION: jnp.array([50.0, 2.0])},
)


def perceptron(width=64):
    """A denoiser of two layers: quick to compile, and enough for one trajectory."""

    def init(rng, x, t, cond):
        shapes = {
            "in": (x[0].size, width),
            "film": (8 + cond[0].size, width),
            "out": (width, x[0].size),
        }
        draw = lambda key, shape: jax.random.normal(key, shape) * shape[0] ** -0.5
        keys = jax.random.split(rng, 3)
        return {name: draw(key, shapes[name]) for name, key in zip(shapes, keys)}

    def prepare(params, cond, t, keys=None):
        time = jnp.cos(jnp.arange(8) * t[..., None] / 30)
        features = cond.reshape(cond.shape[0], -1) @ params["film"][8:]
        return Context(per_level=time @ params["film"][:8], shared=features)

    def apply(params, x, context, keys=None):
        h = x.reshape(x.shape[0], -1) @ params["in"] + context.per_level + context.shared
        return (jnp.tanh(h) @ params["out"]).reshape(x.shape)

    return Denoiser(init, prepare, apply)


def make(denoiser=None, num_steps=10, **options):
    """A diffusion policy of the toy data; by default the perceptron's, with DDPM."""
    defaults = {"horizon": HORIZON, "sampler": samplers.ddpm(), "num_steps": num_steps}
    return policies.diffusion_policy(
        base.encoder_of(Concat(("state",))),
        denoiser or perceptron(),
        schedules.cosine(100),
        UNITS,
        **{**defaults, **options},
    )


def batch_of(indices, seed=0):
    """The Batch of these examples; each one's numbers depend on its index and the seed alone."""
    draw = lambda i, *shape: np.random.default_rng((seed, i)).normal(size=shape)
    per_example = lambda i, *shape: jnp.asarray(
        np.stack([draw(10 * index + i, *shape) for index in indices]), jnp.float32
    )
    return Batch(
        obs={"state": per_example(0, 2, 3)},
        actions=UNITS.restore(ACTION, per_example(1, HORIZON, ACTIONS)),
        mask=(per_example(2, HORIZON) > 0).astype(jnp.float32),
        index=jnp.asarray(indices, jnp.int32),
    )
