"""Transposed weights for sampling on a CPU: the same function, multiplied from the left."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny
from support.networks import BFLOAT16, batch_of, params_of, policy_of, settings
from support.numerics import normal
from support.tiny import cache, data  # noqa: F401 (fixtures)

from dpjax.config import build
from dpjax.evaluation import rollout as rollout_lib
from dpjax.evaluation.rollout import Episode
from dpjax.export import stablehlo
from dpjax.ops import conv1d, transposed
from dpjax.ops.transposed import Transposed, inference_params, transpose
from dpjax.runs import evaluators
from dpjax.runs import run as run_lib
from dpjax.training.signals import Signals

LARGE = {"denoiser.time_features": 512}  # two of its kernels have 2^20 numbers
CONVOLUTIONS = {  # {name: (kernel size, convolution)}: those of the U-Net
    "same, 5": (5, lambda x, kernel: conv1d.conv(x, kernel, padding=2)),
    "same, 3": (3, lambda x, kernel: conv1d.conv(x, kernel, padding=1)),
    "one": (1, conv1d.conv),
    "down": (3, lambda x, kernel: conv1d.conv(x, kernel, stride=2, padding=1)),
    "up": (4, conv1d.upsample),
}


def transposed_kernel(kernel):
    return Transposed(transpose({"kernel": kernel}, min_size=0)["transposed"])


def named(tree):
    """[(the last name of its path, leaf)] of all leaves."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [([key.key for key in path if hasattr(key, "key")][-1], leaf) for path, leaf in paths]


def names(tree):
    return {name for name, _ in named(tree)}


def test_large_matrices_are_transposed_and_the_rest_is_left():
    shapes = {
        "dense": (512, 512),
        "conv": (4, 256, 256),
        "small": (511, 513),
        "image": (3, 3, 256, 256),
        "vector": (transposed.LARGE_KERNEL,),
    }
    params = {name: {"kernel": np.zeros(shape, np.float32)} for name, shape in shapes.items()}
    params["integers"] = {"kernel": np.zeros((512, 512), np.int32)}
    params["dense"].update(kernel=np.asarray(normal(0, 512, 512)), bias=np.zeros(512))
    params["conv"]["kernel"] = np.asarray(normal(1, 4, 256, 256))
    tree = transpose({"inside": params, "kernel": {"bias": np.ones(2)}})["inside"]
    for name in ("dense", "conv"):
        kernel = params[name]["kernel"]
        np.testing.assert_array_equal(tree[name]["transposed"], np.moveaxis(kernel, -1, 0))
        assert transposed_kernel(kernel).shape == kernel.shape and "kernel" not in tree[name]
    assert tree["dense"]["bias"] is params["dense"]["bias"]
    for name in ("small", "image", "vector", "integers"):
        assert tree[name]["kernel"] is params[name]["kernel"]
    again = transpose(tree)
    assert all(a is b for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(tree), strict=True))


@pytest.mark.parametrize("lead", [(), (1,), (4,), (2, 3)])
def test_a_product_from_the_left_is_the_product(lead):
    x = normal(0, *lead, 6)
    kernel = normal(1, 6, 5)
    for other in (kernel, kernel.reshape(2, 3, 5)):
        got = jax.jit(transposed.dot)(x, transposed_kernel(other))
        np.testing.assert_allclose(got, x @ kernel, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(transposed.dot(x, other), x @ kernel, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [3, transposed.LARGE_BATCH])
@pytest.mark.parametrize("steps", [16, 4, 2])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_of_transposed_kernels_are_the_same(name, steps, batch):
    size, f = CONVOLUTIONS[name]
    x = normal(0, batch, steps, 6)
    kernel = normal(1, size, 6, 4)
    got, want = jax.jit(f)(x, transposed_kernel(kernel)), jax.jit(f)(x, kernel)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [conv1d.LARGE_BATCH, transposed.LARGE_BATCH])
def test_a_large_batch_of_a_large_kernel_is_the_same(batch):
    x = normal(0, batch, 4, 512)
    kernel = normal(1, 5, 512, 512) / 512
    f = jax.jit(lambda x, kernel: conv1d.conv(x, kernel, padding=2))
    np.testing.assert_allclose(f(x, transposed_kernel(kernel)), f(x, kernel), rtol=1e-5, atol=1e-5)


MEANFLOW = {"method": "meanflow", "schedule.name": "flow", "predict": "velocity"}


@pytest.mark.parametrize(
    "name, changes",
    [
        ("unet1d", {}),
        ("unet1d", {"condition": "local"}),
        ("unet1d", {**MEANFLOW, "sampler.name": "euler"}),
        ("transformer", {}),
        ("transformer", {"condition": "inpaint", "denoiser.cond_layers": 1}),
        ("dit", {}),
        ("dit", {"condition": "inpaint"}),
        *((name, BFLOAT16) for name in ("unet1d", "transformer", "dit")),
    ],
)
def test_a_policy_with_transposed_weights_samples_the_same(name, changes):
    params = params_of(name, **changes)
    obs = batch_of(name).obs
    ours = {**params, "denoiser": transpose(params["denoiser"], min_size=0)}
    assert "transposed" in names(ours["denoiser"]) and "kernel" not in names(ours["denoiser"])
    sample = jax.jit(policy_of(name, **changes).sample)
    got, want = (sample(each, jax.random.key(3), obs) for each in (ours, params))
    # In bfloat16 another order of the sums is another rounding, of 1/256.
    atol = 0.05 if changes is BFLOAT16 else 1e-5
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=atol)


def products(text):
    """[(shapes of the operands)] of every product in a compiled program's text."""
    operands = []
    shapes = {}
    for line in text.splitlines():
        if match := re.match(r"\s*(?:ROOT )?(%\S+) = \w+\[([\d,]*)\]", line):
            shapes[match[1]] = tuple(map(int, filter(None, match[2].split(","))))
        if match := re.search(r" dot\((%[^,\s]+), (%[^,\s)]+)\)", line):
            operands.append((shapes[match[1]], shapes[match[2]]))
    return operands


@pytest.mark.parametrize("batch", [1, 3])
def test_the_compiled_product_has_the_weights_on_the_left(batch):
    """Without the barrier in `dot` they are on the right, in the slowest form of all."""
    x = jnp.ones((batch, 4, 96))
    kernel = jnp.ones((96, 160))
    f = lambda x, kernel: jnp.tanh(transposed.dot(jnp.sin(x), kernel))
    text = lambda kernel: jax.jit(f).lower(x, kernel).compile().as_text()
    assert products(text(transposed_kernel(kernel))) == [((160, 96), (4 * batch, 96))]
    assert products(text(kernel)) == [((4 * batch, 96), (96, 160))]


def test_a_large_batch_has_transposed_weights_on_the_right():
    kernel = transposed_kernel(jnp.ones((5, 96, 160)))
    f = jax.jit(lambda x, kernel: conv1d.conv(x, kernel, padding=2))
    text = lambda *shape: f.lower(jnp.ones((*shape, 96)), kernel).compile().as_text()
    operands = lambda *shape: sorted(products(text(*shape)))
    large = transposed.LARGE_BATCH
    assert operands(large - 1, 6) == [((160, 480), (6 * (large - 1), 480))]
    # One product per tap, without padding; in tiles of four steps one per point.
    assert operands(large, 6) == [((large * steps, 96), (160, 96)) for steps in (4, 4, 5, 5, 6)]
    assert operands(large, 8) == 8 * [((2 * large, 96), (160, 96))]
    assert operands(2 * large, 4) == 7 * [((2 * large, 96), (160, 96))]


def test_no_transposed_weights_of_a_network_are_on_the_right():
    # Seven examples: no activations have the shape of any weights.
    params = params_of("unet1d", **LARGE)
    obs = batch_of("unet1d", examples=7).obs
    params = {**params, "denoiser": transpose(params["denoiser"], min_size=2**10)}
    shapes = [x.shape for name, x in named(params["denoiser"]) if name == "transposed"]
    matrices = {(shape[0], int(np.prod(shape[1:]))) for shape in shapes}
    matrices |= {(shape[0] * shape[1], shape[2]) for shape in shapes if shape[1:2] == (4,)}  # up
    sample = jax.jit(policy_of("unet1d", **LARGE).sample)
    operands = products(sample.lower(params, jax.random.key(0), obs).compile().as_text())
    left = {first for first, _ in operands} & matrices
    assert len(left) > 4 and (2048, 512) in left
    assert not {second for _, second in operands} & matrices


@pytest.fixture(scope="module")
def run(tmp_path_factory, data, cache):  # noqa: F811
    """A run folder of a network with large kernels, trained for two steps."""
    folder = tmp_path_factory.mktemp("transposed") / "run"
    changes = [f"{key}={value}" for key, value in LARGE.items()]
    changes += ["denoiser.widths=(16,320)", "train.steps=2", "optim.warmup=1"]
    tiny.finish(folder, data, *changes, cache=cache)
    return run_lib.load(folder)


def test_a_run_samples_with_transposed_weights_what_its_policy_does(run):
    assert "transposed" in names(run.inference_params["denoiser"])
    assert "transposed" not in names(run.params["denoiser"])
    assert "transposed" in run.inference_params["denoiser"]["blocks_3"]["block0"]["conv"]
    obs = batch_of("unet1d", examples=2).obs
    assert run.warm_up([2]) > 0
    keys = jax.random.split(jax.random.key(1), 2)
    want = jax.jit(run.policy.sample)(run.params, keys, obs)
    scale = np.asarray(run.params["normalizer"].scale["action"])  # about 100 px
    np.testing.assert_allclose(
        run.sample_actions(keys, obs) / scale, want / scale, rtol=1e-5, atol=1e-5
    )
    exported = stablehlo.export(run, 2, ["cpu"])
    got = exported.call(jax.random.key_data(keys), obs)
    np.testing.assert_allclose(got / scale, want / scale, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_an_agreement_differentiates_through_transposed_weights(run):
    config = build.with_sampling(run.config, agree="line")
    policy = build.policy(config, None, run.spec)
    obs = batch_of("unet1d", examples=2).obs
    keys = jax.random.split(jax.random.key(1), 2)
    last = np.array(run.sample_actions(jax.random.split(jax.random.key(2), 2), obs))
    optional = (jnp.asarray(last), jnp.array([2, 0]))
    want = jax.jit(policy.sample)(run.params, keys, obs, *optional)
    got = jax.jit(policy.sample)(run.inference_params, keys, obs, *optional)
    scale = np.asarray(run.params["normalizer"].scale["action"])
    np.testing.assert_allclose(got / scale, want / scale, rtol=1e-4, atol=1e-4)
    assert np.abs(got - run.sample_actions(keys, obs)).max() > 0.01 * scale.max()


def test_weights_are_transposed_for_cpus_alone(run):
    assert "transposed" in names(inference_params(run.params, ["cpu"])["denoiser"])
    for platforms in (["cuda"], ["cpu", "cuda"]):
        assert inference_params(run.params, platforms) is run.params
        assert "optimization_barrier" not in stablehlo.export(run, 2, platforms).mlir_module()
    assert "optimization_barrier" in stablehlo.export(run, 2, ["cpu"]).mlir_module()


def test_an_evaluation_transposes_the_weights_once(monkeypatch):
    config, spec = settings("unet1d", **LARGE, **{"eval.every": 1})
    params = params_of("unet1d", **LARGE)
    obs = batch_of("unet1d", examples=2).obs
    key = jax.random.key(1)
    chunks = []
    trees = []

    def rollout(simulator, observe, sample_actions, **options):
        chunks.extend(sample_actions(key, obs) for _ in range(2))
        return [Episode(0, 1, np.ones(1, np.float32), {}, chunks[0][0], 1.0, True)]

    def recorded(*args):
        trees.append(inference_params(*args))
        return trees[-1]

    monkeypatch.setattr(rollout_lib, "rollout", rollout)
    monkeypatch.setattr(evaluators, "inference_params", recorded)
    evaluators.rollouts(config, spec, Signals())(jax.device_get(params))
    assert len(chunks) == 2 and len(trees) == 1 and "transposed" in names(trees[0]["denoiser"])
    few = build.policy(build.with_sampling(config, steps=config.eval.num_steps), None, spec)
    want = jax.jit(few.sample)(params, key, obs)
    np.testing.assert_allclose(chunks[1], want, rtol=1e-5, atol=1e-5)
