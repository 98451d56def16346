"""The U-Net equals the authors', forward and backward, whole and as `prepare` and `denoise`."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import torch_unet

from dpjax.core.errors import UserError
from dpjax.nets import unet1d
from dpjax.nets.unet1d import UNet1D


def load(golden, name):
    """(network, params, (x, t, cond), arrays, meta) of one golden file."""
    arrays = golden(name)
    meta = json.loads(str(arrays["meta"]))
    weights = {key[6:]: value for key, value in arrays.items() if key.startswith("param/")}
    params = jax.tree.map(jnp.asarray, torch_unet.params_from(weights, meta))
    x, t = jnp.asarray(arrays["in/sample"]), jnp.asarray(arrays["in/timestep"])
    if "in/local_cond" in arrays:
        cond = jnp.asarray(arrays["in/local_cond"])
    else:
        cond = jnp.asarray(arrays["in/global_cond"])[:, None]  # To = 1
    return torch_unet.network(meta), params, (x, t, cond), arrays, meta


def forward_and_gradient(net, params, inputs):
    def loss(params):
        y = net.apply({"params": params}, *inputs)
        return jnp.mean(y**2), y

    grads, y = jax.jit(jax.grad(loss, has_aux=True))(params)
    return y, jax.device_get(grads)


@pytest.mark.parametrize("name", ["dp_unet1d_global_scale", "dp_unet1d_global_bias"])
@pytest.mark.parametrize("kernels", ["auto", "xla"])
def test_output_and_gradients_equal_the_authors(golden, name, kernels):
    net, params, inputs, arrays, meta = load(golden, name)
    y, grads = forward_and_gradient(net.clone(kernels=kernels), params, inputs)
    np.testing.assert_allclose(y, arrays["out"], rtol=1e-5, atol=1e-5)
    want = {key[9:]: value for key, value in arrays.items() if key.startswith("gradnorm/")}
    got = torch_unet.norms(grads, meta)
    assert got.keys() == want.keys()
    for key in want:
        np.testing.assert_allclose(got[key], want[key], rtol=1e-4, atol=1e-7, err_msg=key)


@pytest.mark.slow
def test_local_conditioning_equals_the_authors(golden):
    net, params, inputs, arrays, meta = load(golden, "dp_unet1d_local")
    y, grads = forward_and_gradient(net, params, inputs)
    np.testing.assert_allclose(y, arrays["out"], rtol=1e-5, atol=1e-5)
    got = torch_unet.norms(grads, meta)
    want = {key[9:]: value for key, value in arrays.items() if key.startswith("gradnorm/")}
    # Their second local block feeds nothing.
    dead = {key for key in want if key.startswith("local_cond_encoder.1")}
    assert got.keys() == want.keys() - dead and not any(want[key] for key in dead)
    for key in got:
        np.testing.assert_allclose(got[key], want[key], rtol=1e-4, atol=1e-7, err_msg=key)


def test_params_have_the_imported_shapes(golden):
    net, params, inputs, _, _ = load(golden, "dp_unet1d_global_scale")
    initial = jax.eval_shape(net.init, jax.random.key(0), *inputs)["params"]
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda leaf: leaf.shape, initial)


def test_a_large_batch_and_its_parts_equal_the_authors(golden):
    # 18 examples: short convolutions have another form; and `prepare` and `denoise` apart.
    net, params, inputs, arrays, _ = load(golden, "dp_unet1d_global_scale")
    x, t, cond = (jnp.tile(leaf, (6,) + (1,) * (leaf.ndim - 1)) for leaf in inputs)

    @jax.jit
    def apart(params):
        context = net.apply({"params": params}, cond, t, method=net.prepare)
        return net.apply({"params": params}, x, context, method=net.denoise)

    want = np.tile(arrays["out"], (6, 1, 1))
    np.testing.assert_allclose(apart(params), want, rtol=1e-5, atol=1e-5)


def tiny(horizon=4, widths=(8, 16)):
    net = UNet1D(features=2, widths=widths, kernel_size=3, groups=4, time_features=8)
    x, cond = jnp.ones((3, horizon, 2)), jnp.arange(18.0).reshape(3, 2, 3) / 9
    t = jnp.array([0, 5, 5])
    return net, jax.jit(net.init)(jax.random.key(0), x, t, cond), x, t, cond


@pytest.fixture(scope="module")
def tiny_net():
    return tiny()


def test_a_chunk_is_prepared_once_for_all_levels(tiny_net):
    net, params, x, t, cond = tiny_net

    @jax.jit
    def both(params):
        context = net.apply(params, cond, jnp.array([0, 5]), method=net.prepare)
        at_5 = context.replace(per_level=context.per_level[1])
        return net.apply(params, x, at_5, method=net.denoise), net.apply(params, x, t, cond)

    got, want = both(params)
    np.testing.assert_allclose(got[1:], want[1:], rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_forward_mode_goes_through_the_network(tiny_net):
    net, params, x, t, cond = tiny_net
    f = lambda x: net.apply(params, x, t, cond)
    v = jnp.linspace(-1, 1, x.size).reshape(x.shape)
    x = x + jnp.linspace(0, 1, x.size).reshape(x.shape)
    step = 1e-2

    @jax.jit
    def both(x, v):
        _, tangent = jax.jvp(f, (x,), (v,))
        return tangent, (f(x + step * v) - f(x - step * v)) / (2 * step)

    tangent, want = both(x, v)
    np.testing.assert_allclose(tangent, want, atol=5e-3)


@pytest.mark.parametrize("horizon, levels, near", [(15, 2, 16), (10, 3, 8), (2, 3, 4)])
def test_a_horizon_that_cannot_be_halved_is_refused_in_one_line(horizon, levels, near):
    with pytest.raises(UserError, match=f"horizon={horizon} .*such as {near}") as error:
        tiny(horizon, widths=(8, 16, 16)[:levels])  # before anything is compiled
    assert error.value.argument == "horizon" and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "widths, groups, message",
    [
        ((), 8, "widths is empty"),
        ((16, 20), 8, "has 20, which groups=8"),
        ((12, 24), 4, "starts with 12"),
        ((16, 0), 8, "has 0"),
        ((16, 32), 0, "groups=0"),
    ],
)
def test_sizes_that_the_group_norms_cannot_split_are_refused(widths, groups, message):
    with pytest.raises(UserError, match=message) as error:
        unet1d.check_sizes(widths, groups)
    assert error.value.argument == ("widths" if groups else "groups")


@pytest.mark.parametrize(
    "sizes, message",
    [
        (dict(kernel_size=4), "kernel_size=4 must be odd"),
        (dict(time_features=3), "time_features=3 must be even"),
    ],
)
def test_other_sizes_that_make_no_network_are_refused(sizes, message):
    with pytest.raises(UserError, match=message) as error:
        unet1d.check_sizes((16, 32), 8, **sizes)
    assert [error.value.argument] == list(sizes)


def test_good_sizes_pass():
    unet1d.check_sizes((256, 512, 1024), 8)
    unet1d.check_horizon(16, (256, 512, 1024))
