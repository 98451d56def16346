"""The switch: with "xla" every network is the same function, of XLA's own operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.networks import NAMES, batch_of, distance, loss_and_gradient, params_of, policy_of
from support.numerics import assert_same_function, normal

from dpjax.core import runtime
from dpjax.core.errors import UserError
from dpjax.nets.unet1d import UNet1D
from dpjax.ops import conv1d, conv2d, kernels, transposed

XLA = {"compute.kernels": "xla"}
HORIZON = 8
BATCH = 16  # enough for tiles of steps
DENOISERS = {
    "unet1d": lambda kernels: UNet1D(2, (64, 64), time_features=16, kernels=kernels),
    "unet1d, local": lambda kernels: UNet1D(
        2, (16, 16), time_features=16, local=True, kernels=kernels
    ),
}


@pytest.fixture
def untried(monkeypatch):
    """A jaxlib that nothing was tried with; nobody was warned yet."""
    monkeypatch.setattr(runtime, "jaxlib_version", lambda: "0.9.1")
    kernels.warn_untried.cache_clear()
    yield
    kernels.warn_untried.cache_clear()


def inputs(name):
    """(x, t, cond) of a denoiser."""
    cond = normal(1, BATCH, HORIZON if "local" in name else 2, 3)
    return normal(0, BATCH, HORIZON, 2), jnp.arange(BATCH) % 7, cond


def value_and_gradient(net, params, *args):
    def mean_square(params):
        y = net.apply(params, *args)
        return jnp.mean(y**2), y

    grads, y = jax.jit(jax.grad(mean_square, has_aux=True))(params)
    return jax.device_get((y, grads))


@pytest.mark.parametrize("name", DENOISERS)
@pytest.mark.slow
def test_a_unet_is_the_same_function_with_both(name):
    """With tiles and with neighbours side by side; the other networks are tested as policies."""
    make = DENOISERS[name]
    args = inputs(name)
    params = jax.jit(make("auto").init)(jax.random.key(0), *args)
    same = jax.eval_shape(make("xla").init, jax.random.key(0), *args)
    assert jax.tree.structure(params) == jax.tree.structure(same)
    y, grads = value_and_gradient(make("auto"), params, *args)
    want, want_grads = value_and_gradient(make("xla"), params, *args)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())
    assert distance(grads, want_grads) < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_is_the_same_with_both(name):
    """Its loss, the gradient, and the actions that it samples, from the config's key on."""
    loss, grads = loss_and_gradient(name)
    xla_loss, xla_grads = loss_and_gradient(name, **XLA)
    np.testing.assert_allclose(loss, xla_loss, rtol=1e-5)
    assert distance(grads, xla_grads) < 1e-5
    if name == "image":  # its denoiser is the U-Net's, and compiling takes a minute
        return
    params = params_of(name)
    obs = batch_of(name).obs
    sample = lambda **changes: jax.jit(policy_of(name, **changes).sample)
    got = sample()(params, jax.random.key(3), obs)
    np.testing.assert_allclose(got, sample(**XLA)(params, jax.random.key(3), obs), atol=1e-5)


def operations(net, params, *args):
    """Counts of a program for a CPU: convolutions, and optimization barriers, which mark tiles."""
    loss = lambda params: jnp.sum(net.apply(params, *args) ** 2)
    text = jax.jit(jax.grad(loss)).trace(params).lower(lowering_platforms=("cpu",)).as_text()
    return text.count("stablehlo.convolution"), text.count("stablehlo.optimization_barrier")


def test_the_unet_holds_xlas_convolution_with_xla_alone():
    args = inputs("unet1d")
    params = jax.eval_shape(DENOISERS["unet1d"]("auto").init, jax.random.key(0), *args)
    fast, barriers = operations(DENOISERS["unet1d"]("auto"), params, *args)
    assert fast == 0 and barriers > 0
    convolutions, barriers = operations(DENOISERS["unet1d"]("xla"), params, *args)
    assert convolutions > 20 and barriers == 0


def test_the_compiled_program_holds_xlas_convolution():
    x = normal(0, 64, 16, 32)
    kernel = normal(1, 5, 32, 32)
    for choice, expected in (("xla", True), ("auto", False)):
        f = jax.jit(lambda x, k, choice=choice: conv1d.conv(x, k, padding=2, kernels=choice))
        text = f.lower(x, kernel).compile().as_text()
        assert (" convolution(" in text) == expected, choice


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_every_platform_gets_xlas_convolution(platform):
    x = jnp.ones((64, 16, 256))
    kernel = jnp.ones((5, 256, 256))
    f = jax.jit(lambda x, kernel: conv1d.conv(x, kernel, padding=2, kernels="xla"))
    text = f.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.convolution") == 1 and "dot_general" not in text


@pytest.mark.parametrize(
    "f, shapes",
    [
        (conv1d.upsample, ((2, 4, 3), (4, 3, 5))),
        (transposed.dense, ((2, 4, 3), (3, 5))),
        (conv1d.conv, ((2, 4, 3), (1, 3, 5))),
        (conv2d.conv2d, ((2, 4, 4, 3), (1, 1, 3, 5))),
        (conv2d.max_pool, ((2, 6, 6, 3),)),
    ],
)
def test_an_operation_is_the_same_with_both(f, shapes):
    args = [normal(seed, *shape) for seed, shape in enumerate(shapes)]
    assert_same_function(f, lambda *args: f(*args, kernels="xla"), *args)


def test_params_stay_as_they_are_with_xla():
    params = {"denoiser": {"layer": {"kernel": jnp.ones((512, 512))}}}
    assert transposed.inference_params(params, ["cpu"], "xla") is params
    assert transposed.inference_params(params, ["cpu"]) is not params


def test_another_jaxlib_gets_xlas_own_and_one_warning(untried, caplog):
    x = normal(0, 64, 16, 64)
    kernel = normal(1, 5, 64, 64)
    text = jax.jit(lambda x, kernel: conv1d.conv(x, kernel, padding=2)).lower(x, kernel).as_text()
    assert "stablehlo.convolution" in text and "dot_general" not in text
    params = {"denoiser": {"kernel": jnp.ones((512, 512))}}
    assert transposed.inference_params(params, ["cpu"]) is params
    (record,) = caplog.records
    assert record.getMessage().startswith("jaxlib 0.9.1 was not tried with dpjax's fast kernels")


def test_a_jaxlib_can_be_tried_on_a_gpu_alone(monkeypatch):
    monkeypatch.setattr(runtime, "jaxlib_version", lambda: "0.11.2")
    x = jnp.ones((64, 16, 256))
    kernel = jnp.ones((5, 256, 256))
    f = jax.jit(lambda x, kernel: conv1d.conv(x, kernel, padding=2))
    texts = {
        platform: f.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "cuda")
    }
    assert "stablehlo.convolution" in texts["cpu"] and "dot_general" in texts["cuda"]


def test_an_unknown_choice_is_refused_in_one_line():
    with pytest.raises(UserError, match="kernels='fast' is unknown; .*auto, xla") as error:
        conv1d.conv(jnp.ones((1, 4, 2)), jnp.ones((3, 2, 2)), padding=1, kernels="fast")
    assert error.value.argument == "kernels" and "\n" not in str(error.value)
