"""How a step is computed (in parts, in bfloat16, again in the backward pass) changes little."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support import tiny_config, tiny_transformer
from support.jaxprs import equations

from dpjax.config import build
from dpjax.core.normalizer import Normalizer
from dpjax.core.spec import Spec
from dpjax.core.types import ACTION, Batch
from dpjax.nets.encoders import Concat
from dpjax.policies import base
from dpjax.training import state
from dpjax.training.step import train_step

ROWS, SIZES = 8, {"keypoints": 18, "agent_pos": 2}


def setting(name, **changes):
    """(config, spec) of a tiny network: unet1d, transformer, dit or image."""
    config = (tiny_transformer if name == "transformer" else tiny_config).get_config()
    config.denoiser = {
        "unet1d": config.denoiser,
        "transformer": config.denoiser,
        "dit": dict(name="dit", layers=2, heads=2, width=8, drop=0.1),
        "image": config.denoiser,
    }[name]
    config.update_from_flattened_dict(changes)
    sizes = dict(SIZES)
    if name == "image":
        config.cameras = dict(image=dict(size=(36, 36), resize=(), crop=(32, 32)))
        config.encoder.update(width=16, keypoints=4, features=8)
        sizes["image"] = (36, 36, 3)
    return config, Spec(sizes, 2, "")


def policy_of(name, **changes):
    config, spec = setting(name, **changes)
    sizes = {
        key: size if isinstance(size, int) else size[-1] for key, size in spec.observations.items()
    }
    sizes[ACTION] = 2
    units = Normalizer(
        {key: jnp.zeros(size) for key, size in sizes.items()},
        {key: jnp.full(size, 127.0 if size == 3 else 1.0) for key, size in sizes.items()},
    )
    return build.policy(config, units, spec)


def batch_of(name, rows=ROWS):
    rng = np.random.default_rng(0)
    full = lambda *shape: rng.normal(size=(rows, *shape)).astype(np.float32)
    obs = {key: full(2, size) for key, size in SIZES.items()}
    if name == "image":
        obs["image"] = rng.integers(0, 256, (rows, 2, 36, 36, 3), np.uint8)
    mask = np.ones((rows, 8), np.float32)
    return Batch(obs, full(8, 2), mask, np.arange(rows, dtype=np.int32))


@functools.cache
def params_of(name, **changes):
    """The params, moved a little: DiT's begin with gates that are shut."""
    params = jax.jit(policy_of(name, **changes).init)(jax.random.key(0), batch_of(name))
    leaves, tree = jax.tree.flatten({key: params[key] for key in ("encoder", "denoiser")})
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [x + 0.02 * jax.random.normal(key, x.shape) for key, x in zip(keys, leaves)]
    return {**params, **jax.tree.unflatten(tree, moved)}


@functools.cache
def loss_and_gradient(name, **changes):
    policy, params = policy_of(name, **changes), params_of(name)
    weights = {key: params[key] for key in ("encoder", "denoiser")}
    mean = lambda weights, rng, batch: (
        policy.loss({**params, **weights}, rng, batch)[0] / (8 * ROWS)
    )
    made = jax.jit(jax.value_and_grad(mean))(weights, jax.random.key(2), batch_of(name))
    return jax.device_get(made)


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def distance(a, b):
    """Of two trees, in parts of the second one's norm."""
    return np.linalg.norm(flat(a) - flat(b)) / np.linalg.norm(flat(b))


@pytest.mark.parametrize("name", ["unet1d", "transformer", "image"])
def test_a_step_in_parts_is_the_same_step(name):
    policy, tx = policy_of(name), optax.sgd(1.0)
    before = state.create(params_of(name), tx)

    def after(parts):
        options = dict(ema_power=0.75, ema_max=0.9999, accumulate=parts)
        step = jax.jit(functools.partial(train_step, policy, tx, **options))
        end, metrics = step(before, jax.random.key(1), batch_of(name))
        moved = jax.tree.map(jnp.subtract, end.params["denoiser"], before.params["denoiser"])
        return jax.device_get((moved, metrics))

    (whole, metrics), (parts, again) = after(1), after(4)
    assert distance(parts, whole) < (3e-6 if name == "image" else 1e-6)  # float rounding
    np.testing.assert_allclose(again["loss"], metrics["loss"], rtol=1e-6)
    np.testing.assert_allclose(again["grad_norm"], metrics["grad_norm"], rtol=1e-5)


def products(jaxpr):
    """[(primitive, operands' dtypes, their sizes)] of every product, however deep."""
    found = []
    for eqn in equations(jaxpr):
        if eqn.primitive.name in ("dot_general", "conv_general_dilated"):
            inputs = [x.aval for x in eqn.invars]
            found.append((eqn.primitive.name, *({str(x.dtype) for x in inputs},), inputs))
    return found


BFLOAT16 = {"compute.dtype": "bfloat16"}
NAMES = ["unet1d", "transformer", "dit", "image"]


@pytest.mark.parametrize("name", NAMES)
def test_the_products_of_the_networks_are_in_bfloat16(name):
    policy, batch = policy_of(name, **BFLOAT16), batch_of(name)
    call = lambda params: policy.loss(params, jax.random.key(2), batch)[0]
    found = products(jax.make_jaxpr(jax.grad(call))(params_of(name)).jaxpr)
    # What a spatial softmax expects of its maps is its own statistic: no weights in it.
    means = lambda inputs: any(x.ndim == 1 and len(x.shape) == 1 for x in inputs)
    wrong = [entry for entry in found if entry[1] != {"bfloat16"} and not means(entry[2])]
    assert len(found) > 10 and not wrong, wrong[:3]


@pytest.mark.parametrize("name", NAMES)
def test_bfloat16_moves_loss_and_gradient_by_its_rounding(name):
    loss, grads = loss_and_gradient(name)
    rounded, again = loss_and_gradient(name, **BFLOAT16)
    assert {leaf.dtype for leaf in jax.tree.leaves((rounded, again))} == {np.dtype("float32")}
    assert 0 < abs(rounded / loss - 1) < 0.02
    assert 1e-4 < distance(again, grads) < 0.1


def test_a_policy_learns_and_acts_in_bfloat16():
    policy, tx, batch = policy_of("unet1d", **BFLOAT16), optax.adam(3e-3), batch_of("unet1d")
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


def test_what_an_encoder_without_weights_is_told_keeps_its_bits():
    encoder = base.encoder_of(Concat(("a",)), dtype=jnp.bfloat16)
    x = jnp.full((1, 1, 1), 1.001)
    np.testing.assert_array_equal(encoder.apply({}, {"a": x}), x)


@pytest.mark.parametrize("name", NAMES)
def test_blocks_computed_again_give_the_same_gradient(name):
    """Dropout is on where there is any: its masks are drawn again too."""
    again = {"compute.remat": True}
    policy, batch = policy_of(name, **again), batch_of(name)
    same = jax.eval_shape(policy.init, jax.random.key(0), batch)
    assert jax.tree.structure(same) == jax.tree.structure(params_of(name))
    call = lambda params: policy.loss(params, jax.random.key(2), batch)[0]
    text = str(jax.make_jaxpr(call)(params_of(name)))
    assert "checkpoint" in text or "remat" in text
    loss, grads = loss_and_gradient(name)
    rerun, regrads = loss_and_gradient(name, **again)
    np.testing.assert_allclose(rerun, loss, rtol=1e-6)
    assert distance(regrads, grads) < 3e-6
