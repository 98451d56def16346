"""Tiny policies of every network, with parameters and a batch for each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dpjax.config import build
from dpjax.core.normalizer import Normalizer
from dpjax.core.spec import Spec
from dpjax.core.types import ACTION, Batch
from support import tiny_config, tiny_transformer

NAMES = ("unet1d", "transformer", "dit", "image")
SIZES = {"keypoints": 18, "agent_pos": 2}  # of the observations
EXAMPLES = 8
BFLOAT16 = {"compute.dtype": "bfloat16"}


def settings(name, **changes):
    """(config, spec) of a tiny network, one of NAMES; changes: {config key: value}."""
    config = (tiny_transformer if name == "transformer" else tiny_config).get_config()
    if name == "dit":
        config.denoiser = dict(name="dit", layers=2, heads=2, width=8, drop=0.1)
    config.update_from_flattened_dict(changes)
    sizes = dict(SIZES)
    if name == "image":
        config.cameras = dict(image=dict(size=(36, 36), resize=(), crop=(32, 32)))
        config.encoder.update(width=16, keypoints=4, features=8)
        sizes["image"] = (36, 36, 3)
    return config, Spec(sizes, 2, "")


def policy_of(name, **changes):
    """The policy of `settings`, with a normalizer that leaves numbers as they are."""
    config, spec = settings(name, **changes)
    sizes = {
        key: size if isinstance(size, int) else size[-1] for key, size in spec.observations.items()
    }
    sizes[ACTION] = 2
    units = Normalizer(
        {key: jnp.zeros(size) for key, size in sizes.items()},
        {key: jnp.full(size, 127.0 if size == 3 else 1.0) for key, size in sizes.items()},
    )
    return build.policy(config, units, spec)


def batch_of(name, examples=EXAMPLES):
    """A batch of random observations and actions."""
    rng = np.random.default_rng(0)
    full = lambda *shape: rng.normal(size=(examples, *shape)).astype(np.float32)
    obs = {key: full(2, size) for key, size in SIZES.items()}
    if name == "image":
        obs["image"] = rng.integers(0, 256, (examples, 2, 36, 36, 3), np.uint8)
    mask = np.ones((examples, 8), np.float32)
    return Batch(obs, full(8, 2), mask, np.arange(examples, dtype=np.int32))


@functools.cache
def params_of(name, **changes):
    """Parameters of the policy, moved a little: the gates of a DiT start closed."""
    params = jax.jit(policy_of(name, **changes).init)(jax.random.key(0), batch_of(name))
    leaves, tree = jax.tree.flatten({key: params[key] for key in ("encoder", "denoiser")})
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [x + 0.02 * jax.random.normal(key, x.shape) for x, key in zip(leaves, keys)]
    return {**params, **jax.tree.unflatten(tree, moved)}


@functools.cache
def loss_and_gradient(name, **changes):
    """(loss, its gradient) of that policy on that batch, as numpy arrays."""
    policy = policy_of(name, **changes)
    params = params_of(name)
    weights = {key: params[key] for key in ("encoder", "denoiser")}

    def mean_loss(weights, rng, batch):
        return policy.loss({**params, **weights}, rng, batch)[0] / (8 * EXAMPLES)

    call = jax.jit(jax.value_and_grad(mean_loss))
    return jax.device_get(call(weights, jax.random.key(2), batch_of(name)))


def distance(a, b) -> float:
    """Norm of the difference of two trees, relative to the norm of the second."""
    flat = lambda tree: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    return np.linalg.norm(flat(a) - flat(b)) / np.linalg.norm(flat(b))
