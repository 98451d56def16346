"""The training step: the same on one device and on eight, and what it leaves alone."""

import functools
import os
from pathlib import Path
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dpjax.core.errors import UserError
from dpjax.core.normalizer import Normalizer
from dpjax.core.types import ACTION, Batch, example_keys
from dpjax.policies.base import Policy
from dpjax.training import optim, parallel, state
from dpjax.training.step import check_accumulation, train_step

BATCH, WINDOWS = 16, 40
EMA = {"ema_power": 0.75, "ema_max": 0.9999}


def toy_policy():
    """Linear regression with noise per example: three lambdas and a matrix."""
    units = Normalizer({ACTION: jnp.full(2, 3.0)}, {ACTION: jnp.full(2, 2.0)})

    def init(rng, batch):
        kernel = jax.random.normal(rng, (3, 2))
        return {"encoder": {}, "denoiser": {"kernel": kernel}, "normalizer": units}

    def loss(params, rng, batch):
        x = params["normalizer"].normalize({ACTION: batch.actions})[ACTION]
        keys = example_keys(rng, batch.index)
        noise = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))(keys)
        y = batch.obs["state"] @ params["denoiser"]["kernel"] - x + 0.1 * noise
        return jnp.sum((y**2).mean(-1) * batch.mask), {"weight": batch.mask.sum()}

    return Policy(init, loss, lambda params, rng, obs: None)


def table():
    """The data set, from which batches are gathered. The first half of one is mostly padding."""
    rng = np.random.default_rng(0)
    full = lambda *shape: rng.normal(size=shape).astype(np.float32)
    kept = np.where(np.arange(WINDOWS) < 8, 0.2, 1.0)[:, None]
    mask = rng.random((WINDOWS, 4)) < kept
    return {
        "state": full(WINDOWS, 4, 3),
        "action": full(WINDOWS, 4, 2),
        "mask": mask.astype(np.float32),
    }


def gather(table, ids, index):
    return Batch({"state": table["state"][ids]}, table["action"][ids], table["mask"][ids], index)


def run(devices, tx, num_steps, name="pmap", around=lambda call: call, **options):
    """The state and metrics after steps on those devices, on the host."""
    policy = toy_policy()
    strategy = parallel.STRATEGIES[name](devices)
    step = functools.partial(train_step, policy, tx, **EMA, **options)
    call = around(strategy.repeat(step, gather))
    start = state.create(policy.init(jax.random.key(0), None), tx)
    ids = np.arange(num_steps * BATCH, dtype=np.int32).reshape(num_steps, BATCH) % WINDOWS
    end, metrics = call(strategy.place(start), jax.random.key(1), strategy.place(table()), ids)
    return strategy.fetch(end), metrics


def leaves(num_devices, name="pmap"):
    """What one device and eight are compared by: gradients (SGD of rate 1), then a run."""
    devices = jax.devices()[:num_devices]
    assert len(devices) == num_devices
    once, metrics = run(devices, optax.sgd(1.0), 1, name)
    many, losses = run(devices, optax.adam(1e-2), 5, name, grad_clip=0.5)
    in_parts, loss = run(devices, optax.sgd(1.0), 1, name, accumulate=2)
    return {
        "after_sgd": once.params["denoiser"]["kernel"],
        "loss": metrics["loss"],
        "grad_norm": metrics["grad_norm"],
        "after_adam": many.params["denoiser"]["kernel"],
        "ema": many.ema["denoiser"]["kernel"],
        "losses": losses["loss"],
        "after_sgd_in_parts": in_parts.params["denoiser"]["kernel"],
        "loss_in_parts": loss["loss"],
        "step": many.step,
        "ema_count": many.ema_count,
    }


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """The results of eight devices, {"strategy/leaf": array}, and the mesh strategy's program."""
    folder = tmp_path_factory.mktemp("eight")
    dump = f"--xla_dump_to={folder} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=jit_call"
    root = str(Path(__file__).parents[2])
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}
    env["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=8 {dump}"
    command = [sys.executable, __file__, str(folder / "leaves.npz")]
    subprocess.run(command, env=env, check=True, timeout=300)
    programs = sorted(folder.glob("*.jit_call.*after_optimizations.txt"))
    return np.load(folder / "leaves.npz"), programs[0].read_text()


@functools.cache
def one_device():
    return leaves(1)


@pytest.mark.parametrize("name", parallel.STRATEGIES)
def test_eight_devices_do_what_one_does(eight, name):
    one = one_device()
    assert len(eight[0].files) == len(parallel.STRATEGIES) * len(one)
    for key in one:
        got = eight[0][f"{name}/{key}"]
        np.testing.assert_allclose(got, one[key], rtol=1e-5, atol=1e-5, err_msg=key)


def test_steps_one_by_one_are_those_of_a_scan():
    tx, devices = optax.adam(1e-2), jax.devices()[:1]
    scanned, losses = run(devices, tx, 5)
    single, same = run(devices, tx, 5, around=parallel.one_by_one)
    assert losses["loss"].shape == same["loss"].shape == (5,) and single.step == 5
    for got, wanted in zip(jax.tree.leaves((single, same)), jax.tree.leaves((scanned, losses))):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", parallel.STRATEGIES)
def test_a_single_device_has_no_axis_of_devices(name):
    strategy = parallel.STRATEGIES[name](jax.devices()[:1])
    leaf = np.arange(6.0).reshape(3, 2)
    placed = strategy.place({"x": leaf})
    assert placed["x"].shape == (3, 2)  # another axis: copies of all of the state in every step
    np.testing.assert_array_equal(strategy.fetch(placed)["x"], leaf)


def test_the_mesh_strategy_splits_the_batch(eight):
    """Equal results don't prove it: eight devices that each do the complete batch agree too."""
    program = eight[1]
    assert "all-reduce" in program and "all-gather" not in program
    assert f"f32[{BATCH // 8},4,2]" in program and f"f32[{BATCH},4,2]" not in program


@functools.cache
def one_step():
    """(state before, state after, metrics, batch, its key) of one SGD step of rate 1."""
    policy, tx = toy_policy(), optax.sgd(1.0)
    before = state.create(policy.init(jax.random.key(0), None), tx)
    batch = gather(jax.tree.map(jnp.asarray, table()), jnp.arange(BATCH), jnp.arange(BATCH))
    step = jax.jit(functools.partial(train_step, policy, tx, **EMA))
    after, metrics = step(before, jax.random.key(1), batch)
    return before, after, metrics, batch, jax.random.fold_in(jax.random.key(1), 0)


def test_the_gradient_is_that_of_the_mean_over_what_counts():
    before, after, metrics, batch, rng = one_step()

    def mean(kernel):
        params = {**before.params, "denoiser": {"kernel": kernel}}
        total, sums = toy_policy().loss(params, rng, batch)
        return total / batch.mask.sum()

    kernel = before.params["denoiser"]["kernel"]
    value, grad = jax.jit(jax.value_and_grad(mean))(kernel)
    moved = kernel - after.params["denoiser"]["kernel"]
    np.testing.assert_allclose(moved, grad, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(metrics["loss"], value, rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], jnp.linalg.norm(grad), rtol=1e-5)


@pytest.mark.parametrize("grad_clip", [0.0, 1e-3, 1e3])
def test_clipping_is_that_of_the_global_norm(grad_clip):
    clip = optax.clip_by_global_norm(grad_clip) if grad_clip else optax.identity()
    want, unclipped = run(jax.devices()[:1], optax.chain(clip, optax.sgd(1.0)), 1)
    got, metrics = run(jax.devices()[:1], optax.sgd(1.0), 1, grad_clip=grad_clip)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-8)
    close(got.params["denoiser"]["kernel"], want.params["denoiser"]["kernel"])
    close(metrics["grad_norm"], unclipped["grad_norm"])  # before clipping


def test_the_first_average_is_the_weights():
    _, after, _, _, _ = one_step()
    np.testing.assert_array_equal(
        after.ema["denoiser"]["kernel"], after.params["denoiser"]["kernel"]
    )
    assert after.step == after.ema_count == 1


def test_the_normalizer_is_untouched_by_training():
    tx = optim.adamw(lr=0.1, steps=9, warmup=0, b1=0.9, b2=0.9, eps=1e-8, weight_decay=0.5)
    end, _ = run(jax.devices()[:1], tx, 5)
    start = toy_policy().init(jax.random.key(0), None)
    for tree in (end.params, end.ema):
        assert not np.allclose(tree["denoiser"]["kernel"], start["denoiser"]["kernel"])
        for got, want in zip(
            jax.tree.leaves(tree["normalizer"]), jax.tree.leaves(start["normalizer"])
        ):
            np.testing.assert_array_equal(got, want)


def test_the_optimizer_holds_nothing_of_the_normalizer():
    tx = optax.adam(1e-3)
    start = state.create(toy_policy().init(jax.random.key(0), None), tx)
    assert sum(leaf.size for leaf in jax.tree.leaves(start.opt_state)) == 2 * 6 + 1


@pytest.mark.parametrize("batch, devices, near", [(10, 8, 8), (3, 8, 8), (60, 8, 64)])
def test_a_batch_that_cannot_be_split_is_refused(batch, devices, near):
    text = f"batch_size={batch} .* {devices} devices: .* such as {near}"
    with pytest.raises(UserError, match=text) as caught:
        parallel.check_batch(batch, devices)
    assert caught.value.argument == "batch_size"
    parallel.check_batch(near, devices)


def test_parts_that_do_not_divide_a_devices_examples_are_refused():
    with pytest.raises(UserError, match="accumulate=3 does not divide the 8 examples") as caught:
        check_accumulation(8, 3)
    assert caught.value.argument == "accumulate"
    check_accumulation(8, 4)


if __name__ == "__main__":
    results = {name: leaves(8, name) for name in parallel.STRATEGIES}
    np.savez(sys.argv[1], **{f"{n}/{key}": x for n in results for key, x in results[n].items()})
