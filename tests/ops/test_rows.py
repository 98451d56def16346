"""Weights turned for an acting CPU: the same function, multiplied from the left."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny
from support.tiny import cache, data  # noqa: F401 (fixtures)
from test_compute import BFLOAT16, batch_of, params_of, policy_of, setting
from test_conv import normal

from dpjax.config import build
from dpjax.evaluation import rollout as rollout_lib
from dpjax.evaluation.rollout import Episode
from dpjax.export import stablehlo
from dpjax.ops import conv1d, transposed
from dpjax.ops.transposed import Rows
from dpjax.runs import evaluators
from dpjax.runs import run as run_lib
from dpjax.training.signals import Signals

LARGE = {"denoiser.time_features": 512}  # of its kernels two have 2^20 numbers
CONVOLUTIONS = {  # {name: (kernel size, convolution)}: those of the U-Net
    "same, 5": (5, lambda x, kernel: conv1d.conv(x, kernel, padding=2)),
    "same, 3": (3, lambda x, kernel: conv1d.conv(x, kernel, padding=1)),
    "one": (1, conv1d.conv),
    "down": (3, lambda x, kernel: conv1d.conv(x, kernel, stride=2, padding=1)),
    "up": (4, conv1d.upsample),
}


def turned(kernel):
    return Rows(transposed.turn({"kernel": kernel}, at_least=0)["rows"])


def named(tree):
    """[(the last name of its path, leaf)] of all leaves."""
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [([key.key for key in path if hasattr(key, "key")][-1], leaf) for path, leaf in paths]


def names(tree):
    return {name for name, _ in named(tree)}


def test_large_matrices_are_turned_and_the_rest_is_left():
    shapes = {
        "dense": (512, 512),
        "conv": (4, 256, 256),
        "small": (511, 513),
        "image": (3, 3, 256, 256),
        "vector": (transposed.LARGE,),
    }
    params = {name: {"kernel": np.zeros(shape, np.float32)} for name, shape in shapes.items()}
    params["whole"] = {"kernel": np.zeros((512, 512), np.int32)}
    params["dense"].update(kernel=np.asarray(normal(0, 512, 512)), bias=np.zeros(512))
    params["conv"]["kernel"] = np.asarray(normal(1, 4, 256, 256))
    made = transposed.turn({"inside": params, "kernel": {"bias": np.ones(2)}})["inside"]
    for name in ("dense", "conv"):
        kernel = params[name]["kernel"]
        parts = made[name]["rows"]
        np.testing.assert_array_equal(np.concatenate(parts), np.moveaxis(kernel, -1, 0))
        assert [len(part) for part in parts] == [kernel.shape[-1] // 2] * 2
        assert turned(kernel).shape == kernel.shape and "kernel" not in made[name]
    assert made["dense"]["bias"] is params["dense"]["bias"]
    for name in ("small", "image", "vector", "whole"):
        assert made[name]["kernel"] is params[name]["kernel"]
    again = transposed.turn(made)
    assert all(a is b for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(made), strict=True))


@pytest.mark.parametrize("lead", [(), (1,), (4,), (2, 3)])
def test_a_product_from_the_left_is_the_product(lead):
    x, kernel = normal(0, *lead, 6), normal(1, 6, 5)
    for other in (kernel, kernel.reshape(2, 3, 5)):
        got = jax.jit(transposed.dot)(x, turned(other))
        np.testing.assert_allclose(got, x @ kernel, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(transposed.dot(x, other), x @ kernel, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("batch", [3, transposed.MANY])
@pytest.mark.parametrize("steps", [16, 4, 2])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolutions_of_turned_kernels_are_the_same(name, steps, batch):
    size, f = CONVOLUTIONS[name]
    x, kernel = normal(0, batch, steps, 6), normal(1, size, 6, 4)
    got, want = jax.jit(f)(x, turned(kernel)), jax.jit(f)(x, kernel)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


def test_only_kernels_that_one_thread_would_get_are_halved():
    parts = lambda *shape: [
        x.shape for x in transposed.turn({"kernel": jnp.ones(shape)}, 0)["rows"]
    ]
    assert parts(512, 512) == [(256, 512)] * 2
    assert parts(5, 512, 512) == [(256, 5, 512)] * 2
    assert parts(512, 511) == [(511, 512)]  # small, and not even
    assert parts(512, 513) == [(513, 512)]  # not even
    assert parts(2048, 1026) == [(1026, 2048)]  # large


@pytest.mark.parametrize("batch", [conv1d.LARGE_BATCH, transposed.MANY])
def test_a_large_batch_of_a_large_kernel_is_the_same(batch):
    x, kernel = normal(0, batch, 4, 512), normal(1, 5, 512, 512) / 512
    f = jax.jit(lambda x, kernel: conv1d.conv(x, kernel, padding=2))
    np.testing.assert_allclose(f(x, turned(kernel)), f(x, kernel), rtol=1e-5, atol=1e-5)


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
def test_a_policy_with_turned_weights_plans_the_same(name, changes):
    params, obs = params_of(name, **changes), batch_of(name).obs
    ours = {**params, "denoiser": transposed.turn(params["denoiser"], at_least=0)}
    assert "rows" in names(ours["denoiser"]) and "kernel" not in names(ours["denoiser"])
    sample = jax.jit(policy_of(name, **changes).sample)
    got, want = (sample(each, jax.random.key(3), obs) for each in (ours, params))
    # In bfloat16 another order of the sums is another rounding, of 1/256.
    atol = 0.05 if changes is BFLOAT16 else 1e-5
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=atol)


def products(text):
    """[(shapes of the operands)] of every product in a compiled program's text."""
    found, shapes = [], {}
    for line in text.splitlines():
        if match := re.match(r"\s*(?:ROOT )?(%\S+) = \w+\[([\d,]*)\]", line):
            shapes[match[1]] = tuple(map(int, filter(None, match[2].split(","))))
        if match := re.search(r" dot\((%[^,\s]+), (%[^,\s)]+)\)", line):
            found.append((shapes[match[1]], shapes[match[2]]))
    return found


@pytest.mark.parametrize("batch", [1, 3])
def test_the_compiled_product_has_the_weights_on_the_left(batch):
    """Without the barrier in `dot` they are on the right, in the slowest form of all."""
    x, kernel = jnp.ones((batch, 4, 96)), jnp.ones((96, 160))
    f = lambda x, kernel: jnp.tanh(transposed.dot(jnp.sin(x), kernel))
    text = lambda kernel: jax.jit(f).lower(x, kernel).compile().as_text()
    assert products(text(turned(kernel))) == [((160, 96), (4 * batch, 96))]
    assert products(text(kernel)) == [((4 * batch, 96), (96, 160))]


def test_many_rows_have_turned_weights_on_the_right():
    kernel = turned(jnp.ones((5, 96, 160)))
    f = jax.jit(lambda x, kernel: conv1d.conv(x, kernel, padding=2))
    text = lambda *shape: f.lower(jnp.ones((*shape, 96)), kernel).compile().as_text()
    made, many = lambda *shape: sorted(products(text(*shape))), transposed.MANY
    assert made(many - 1, 6) == [((160, 480), (6 * (many - 1), 480))]
    # Tap by tap, without padding; in tiles of four steps a product a point.
    assert made(many, 6) == [((many * steps, 96), (160, 96)) for steps in (4, 4, 5, 5, 6)]
    assert made(many, 8) == 8 * [((2 * many, 96), (160, 96))]
    assert made(2 * many, 4) == 7 * [((2 * many, 96), (160, 96))]


def test_no_turned_weights_of_a_network_are_on_the_right():
    # Seven rows: no activations of the shape of any weights.
    params, obs = params_of("unet1d", **LARGE), batch_of("unet1d", rows=7).obs
    params = {**params, "denoiser": transposed.turn(params["denoiser"], at_least=2**10)}
    found = [x.shape for name, x in named(params["denoiser"]) if name == "rows"]
    matrices = {(shape[0], int(np.prod(shape[1:]))) for shape in found}
    matrices |= {(shape[0] * shape[1], shape[2]) for shape in found if shape[1:2] == (4,)}  # up
    sample = jax.jit(policy_of("unet1d", **LARGE).sample)
    made = products(sample.lower(params, jax.random.key(0), obs).compile().as_text())
    left = {first for first, _ in made} & matrices
    assert len(left) > 4 and (1024, 512) in left  # one of two halves
    assert not {second for _, second in made} & matrices


@pytest.fixture(scope="module")
def run(tmp_path_factory, data, cache):  # noqa: F811
    """A run folder of a network with large kernels, trained for two steps."""
    folder = tmp_path_factory.mktemp("rows") / "run"
    changes = [f"{key}={value}" for key, value in LARGE.items()]
    changes += ["denoiser.widths=(16,320)", "train.steps=2", "optim.warmup=1"]
    tiny.finish(folder, data, *changes, cache=cache)
    return run_lib.load(folder)


def test_a_run_plans_with_turned_weights_what_its_policy_samples(run):
    assert "rows" in names(run.acting["denoiser"]) and "rows" not in names(run.params["denoiser"])
    assert "rows" in run.acting["denoiser"]["blocks_3"]["block0"]["conv"]
    obs = batch_of("unet1d", rows=2).obs
    assert run.warm_up([2]) > 0
    keys = jax.random.split(jax.random.key(1), 2)
    want = jax.jit(run.policy.sample)(run.params, keys, obs)
    scale = np.asarray(run.params["normalizer"].scale["action"])  # about 100 px
    np.testing.assert_allclose(run.plan(keys, obs) / scale, want / scale, rtol=1e-5, atol=1e-5)
    exported = stablehlo.export(run, 2, ["cpu"])
    got = exported.call(jax.random.key_data(keys), obs)
    np.testing.assert_allclose(got / scale, want / scale, rtol=1e-5, atol=1e-5)


def test_only_what_acts_on_cpus_alone_is_turned(run):
    assert "rows" in names(build.acting(run.params, ["cpu"])["denoiser"])
    for platforms in (["cuda"], ["cpu", "cuda"]):
        assert build.acting(run.params, platforms) is run.params
        assert "optimization_barrier" not in stablehlo.export(run, 2, platforms).mlir_module()
    assert "optimization_barrier" in stablehlo.export(run, 2, ["cpu"]).mlir_module()


def test_an_evaluation_turns_the_weights_once(monkeypatch):
    config, spec = setting("unet1d", **LARGE, **{"eval.every": 1})
    params, obs = params_of("unet1d", **LARGE), batch_of("unet1d", rows=2).obs
    key, plans, turns = jax.random.key(1), [], []

    def rollout(task, plan, **options):
        plans.extend(plan(key, obs) for _ in range(2))
        return [Episode(0, 1, np.ones(1, np.float32), {}, plans[0][0], 1.0, True)]

    acting = build.acting
    monkeypatch.setattr(rollout_lib, "rollout", rollout)
    monkeypatch.setattr(build, "acting", lambda *given: turns.append(acting(*given)) or turns[-1])
    evaluators.evaluation(config, spec, Signals())(jax.device_get(params))
    assert len(plans) == 2 and len(turns) == 1 and "rows" in names(turns[0]["denoiser"])
    few = build.policy(build.sampling(config, steps=config.eval.num_steps), None, spec)
    want = jax.jit(few.sample)(params, key, obs)
    np.testing.assert_allclose(plans[1], want, rtol=1e-5, atol=1e-5)
