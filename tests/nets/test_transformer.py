"""The transformer equals the authors', forward and backward, whole and in its two parts."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import torch_transformer

from dpjax.core.errors import UserError
from dpjax.core.normalizer import Normalizer
from dpjax.core.types import ACTION, Batch, example_keys
from dpjax.diffusion import samplers, schedules
from dpjax.nets import transformer
from dpjax.nets.attention import dropouts
from dpjax.nets.encoders import Concat
from dpjax.nets.transformer import Transformer
from dpjax.policies import base
from dpjax.policies import diffusion as policies
from dpjax.training import optim

VARIANTS = ("dp_transformer_cond_mlp", "dp_transformer_cond_encoder", "dp_transformer_bert")


def load(golden, name):
    """(network, params, (x, t, cond), arrays, meta) of one golden file."""
    arrays = golden(name)
    meta = json.loads(str(arrays["meta"]))
    weights = {key[6:]: value for key, value in arrays.items() if key.startswith("param/")}
    params = jax.tree.map(jnp.asarray, torch_transformer.params_from(weights, meta))
    x, t = jnp.asarray(arrays["in/sample"]), jnp.asarray(arrays["in/timestep"])
    cond = jnp.asarray(arrays.get("in/cond", np.zeros((len(x), 0, 0), np.float32)))
    return torch_transformer.network(meta), params, (x, t, cond), arrays, meta


@pytest.mark.parametrize("name", VARIANTS)
def test_output_and_gradients_equal_the_authors(golden, name):
    net, params, inputs, arrays, meta = load(golden, name)

    def loss(params):
        y = net.apply({"params": params}, *inputs)
        return jnp.mean(y**2), y

    grads, y = jax.jit(jax.grad(loss, has_aux=True))(params)
    np.testing.assert_allclose(y, arrays["out"], rtol=1e-5, atol=1e-5)
    want = {key[9:]: value for key, value in arrays.items() if key.startswith("gradnorm/")}
    got = torch_transformer.norms(jax.device_get(grads), meta)
    assert got.keys() == want.keys()
    for key in want:
        np.testing.assert_allclose(got[key], want[key], rtol=1e-4, atol=1e-7, err_msg=key)


@pytest.mark.parametrize("name", VARIANTS)
def test_params_have_the_imported_shapes(golden, name):
    net, params, inputs, _, _ = load(golden, name)
    initial = jax.eval_shape(net.init, jax.random.key(0), *inputs)["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda leaf: leaf.shape, initial)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_chunk_is_prepared_once_for_all_levels(golden, name):
    net, params, (x, t, cond), _, _ = load(golden, name)
    params = {"params": params}

    @jax.jit
    def both(levels):
        context = net.apply(params, cond, levels, method=net.prepare)
        at_1 = context.replace(per_level=context.per_level[1])
        t = jnp.full(len(x), levels[1])
        return net.apply(params, x, at_1, method=net.denoise), net.apply(params, x, t, cond)

    got, want = both(jnp.array([0, 7, 31, 60, 99]))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_an_action_attends_to_what_the_masks_allow():
    net = Transformer(features=2, horizon=6, observed=3, layers=1, heads=2, width=8)
    x, t, cond = jnp.ones((1, 6, 2)), jnp.zeros(1, int), jnp.ones((1, 3, 4))
    params = net.init(jax.random.key(0), x, t, cond)
    params = jax.tree.map(lambda leaf: leaf + 0.1, params)
    of_x = jax.jacobian(lambda x: net.apply(params, x, t, cond)[0].sum(-1))(x)[:, 0]
    of_obs = jax.jacobian(lambda cond: net.apply(params, x, t, cond)[0].sum(-1))(cond)[:, 0]
    seen_x = np.abs(np.random.default_rng(0).normal(size=2) @ np.moveaxis(of_x, -1, -2)) > 0
    np.testing.assert_array_equal(np.triu(seen_x, 1), 0)
    seen_obs = np.abs(of_obs).sum(-1) > 0
    np.testing.assert_array_equal(seen_obs, np.arange(6)[:, None] >= np.arange(3))


def test_dropout_belongs_to_an_example_and_keeps_the_mean():
    keys = jax.random.split(jax.random.key(0), 64)
    x = jnp.ones((64, 500))
    drop = dropouts(0.25, keys)
    first, second = drop(x), drop(x)
    assert abs(first.mean() - 1) < 0.02 and set(np.unique(first)) == {0, np.float32(4 / 3)}
    assert (first != second).any()
    np.testing.assert_array_equal(dropouts(0.25, keys[32:])(x[32:]), first[32:])
    assert dropouts(0.25, None)(x) is x and dropouts(0.0, keys)(x) is x


@pytest.mark.parametrize("width, heads", [(10, 4), (0, 1), (8, 0), (12, 4)])
def test_a_width_that_the_heads_cannot_split_is_refused(width, heads):
    with pytest.raises(UserError, match="must be an even multiple of heads") as error:
        transformer.check_sizes(width, heads)
    assert error.value.argument == "width"


def small_policy(**options):
    net = Transformer(2, 4, 2, layers=1, heads=2, width=8, drop_tokens=0.1, **options)
    units = Normalizer(
        {"state": jnp.zeros(3), ACTION: jnp.zeros(2)}, {"state": jnp.ones(3), ACTION: jnp.ones(2)}
    )
    return policies.diffusion_policy(
        base.encoder_of(Concat(("state",))),
        base.denoiser_of(net),
        schedules.cosine(20),
        units,
        horizon=4,
        sampler=samplers.ddpm(),
        num_steps=3,
    )


def batch_of(rows):
    rows = jnp.arange(6, dtype=jnp.int32)[rows]
    draw = lambda key, *shape: jax.vmap(lambda k: jax.random.normal(k, shape))(
        example_keys(jax.random.key(key), rows)
    )
    return Batch({"state": draw(0, 2, 3)}, draw(1, 4, 2), jnp.ones((len(rows), 4)), rows)


@pytest.mark.parametrize("options", [{}, {"cond_layers": 1}, {"encoder_only": True}])
@pytest.mark.slow
def test_dropout_is_the_same_however_examples_are_spread(options):
    policy = small_policy(drop=0.4, **options)
    params = policy.init(jax.random.key(0), batch_of(slice(6)))
    loss = jax.jit(lambda rng, batch: policy.loss(params, rng, batch)[0])
    whole = loss(jax.random.key(1), batch_of(slice(6)))
    parts = [loss(jax.random.key(1), batch_of(slice(i, i + 3))) for i in (0, 3)]
    np.testing.assert_allclose(whole, sum(parts), rtol=1e-5)


@pytest.mark.slow
def test_dropout_is_on_in_training_and_off_in_sampling():
    on, off = small_policy(drop=0.4), small_policy(drop=0.0)
    batch, rng = batch_of(slice(6)), jax.random.key(1)
    params = on.init(jax.random.key(0), batch)
    assert abs(on.loss(params, rng, batch)[0] / off.loss(params, rng, batch)[0] - 1) > 1e-3
    samples = [jax.jit(policy.sample)(params, rng, batch.obs) for policy in (on, off)]
    np.testing.assert_array_equal(*samples)


def test_only_matrices_decay():
    net = Transformer(2, 4, 2, layers=1, heads=2, width=8)
    shapes = jax.eval_shape(
        net.init, jax.random.key(0), jnp.ones((1, 4, 2)), jnp.zeros(1), jnp.ones((1, 2, 3))
    )["params"]
    decayed = jax.tree_util.tree_flatten_with_path(optim.weight_matrices(shapes))[0]
    for path, is_matrix in decayed:
        assert is_matrix == (path[-1].key == "kernel"), jax.tree_util.keystr(path)
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2), "position": jnp.ones((3, 2))}
    fixed = dict(steps=10, warmup=0, b1=0.9, b2=0.95, eps=1e-8)
    tx = optim.adamw(lr=0.5, weight_decay=0.5, decay="matrices", **fixed)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = tx.update(zero, tx.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.25)
    assert not updates["bias"].any() and not updates["position"].any()
