"""Checkpoints: round trips, retention, refusals, the lock."""

import os
from pathlib import Path
import random
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import states
from support.states import CONFIG, files_of, flip, make, same, write

from dpjax.core import files
from dpjax.core.errors import UserError
from dpjax.core.normalizer import Normalizer
from dpjax.training import checkpoint
from dpjax.training.checkpoint import integrity, layout

two_steps = states.two_steps  # fixtures
run_dir = states.run_dir
ROOT = Path(__file__).parents[2]

# Round trips


@pytest.mark.parametrize("encoder", [True, False])
def test_what_is_restored_is_bit_equal(tmp_path, encoder, caplog):
    state = make(7, encoder=encoder)
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(state, config=CONFIG, score=0.5, extra={"horizon": 16})
    checkpoints.close()
    restored = checkpoint.restore_latest(tmp_path, make(0, encoder=encoder))
    assert same(restored, state) and not caplog.records
    assert (int(restored.step), int(restored.ema_count)) == (7, 12)
    meta = checkpoint.read_meta(tmp_path, 7)
    assert (meta["config"], meta["score"], meta["horizon"]) == (CONFIG, 0.5, 16)
    assert {"dpjax", "jax", "flax", "optax", "orbax", "numpy", "python"} == set(meta["versions"])


def test_every_item_restores_without_the_others(run_dir, caplog):
    for name, tree in layout.items(make(2)).items():
        others = [p for p in (run_dir / "checkpoints/2").iterdir() if p.is_dir() and p.name != name]
        for other in others:
            other.rename(run_dir / other.name)
        items, step = checkpoint.load_items(run_dir, [name])
        for other in others:
            (run_dir / other.name).rename(other)
        assert step == 2 and not caplog.records
        assert same(list(integrity.by_path(items[name]).values()), jax.tree.leaves(tree))


def test_params_come_raw_or_averaged(run_dir):
    for which, want in (("raw", make(2).params), ("ema", make(2).ema)):
        params, step = checkpoint.load_params(run_dir, which=which)
        assert same(params, want) and step == 2
        assert isinstance(params["normalizer"], Normalizer)
    params, step = checkpoint.load_params(run_dir, which="raw", step=1)
    assert same(params, make(1).params) and step == 1
    with pytest.raises(UserError, match="which='emma' is unknown; did you mean 'ema'"):
        checkpoint.load_params(run_dir, which="emma")
    with pytest.raises(UserError, match="no item 'emcoder'; did you mean 'encoder'"):
        checkpoint.load_items(run_dir, ["emcoder"])
    with pytest.raises(UserError, match=r"no step 5 .*there are \[1, 2\]"):
        checkpoint.load_params(run_dir, step=5)


def test_the_copy_is_taken_at_once(tmp_path):
    state = jax.tree.map(lambda x: np.array(x), make(1))
    checkpoints = checkpoint.Checkpoints(tmp_path)
    checkpoints.save(state, config=CONFIG)
    for leaf in jax.tree.leaves(state):
        leaf[...] = 0
    checkpoints.close()
    assert same(checkpoint.restore_latest(tmp_path, state), make(1))


def test_no_step_is_not_an_error_for_a_fresh_run(tmp_path):
    assert checkpoint.restore_latest(tmp_path / "none", make(0)) is None
    with pytest.raises(UserError, match="train first"):
        checkpoint.load_params(tmp_path)


# Retention


def test_latest_and_best_are_kept(tmp_path):
    write(tmp_path, 1, 2, 3, 4, scores={1: 0.9, 2: 0.1, 3: 0.8, 4: 0.0}, keep_best=2)
    assert checkpoint.steps(tmp_path) == [1, 3, 4]
    assert same(checkpoint.restore_latest(tmp_path, make(0)), make(4))
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["1", "3", "4"]


def test_without_scores_the_newest_are_kept(tmp_path):
    write(tmp_path, 1, 2, 3, keep_best=2, scores={2: float("nan")})
    assert checkpoint.steps(tmp_path) == [2, 3]
    assert checkpoint.read_meta(tmp_path, 2)["score"] is None


def test_a_step_saved_again_gets_its_score(run_dir):
    before = {p: p.stat().st_mtime_ns for p in files_of(run_dir, 2)}
    write(run_dir, 2, scores={2: 0.7})
    changed = [p.name for p in files_of(run_dir, 2) if p.stat().st_mtime_ns != before[p]]
    assert changed == ["meta.json"]
    assert checkpoint.read_meta(run_dir, 2)["score"] == 0.7


def test_a_step_trained_anew_replaces_a_damaged_one(run_dir):
    flip(max(files_of(run_dir, 2), key=lambda p: p.stat().st_size), random.Random(0))
    write(run_dir, 2)
    assert same(checkpoint.restore_latest(run_dir, make(0)), make(2))


# Refusals


def test_non_finite_weights_are_refused_by_name(run_dir):
    checkpoints = checkpoint.Checkpoints(run_dir)
    for bad in (jnp.nan, jnp.inf):
        state = make(3)
        state.ema["denoiser"]["Conv_0"]["bias"] = jnp.ones(24).at[4].set(bad)
        with pytest.raises(UserError, match="ema_denoiser/Conv_0/bias has 1 non-finite"):
            checkpoints.save(state, config=CONFIG)
    checkpoints.close()
    assert same(checkpoint.restore_latest(run_dir, make(0)), make(2))


def test_large_weights_are_not_taken_for_infinite():
    assert integrity.count_non_finite(np.full(9, 3e38, np.float32)) == 0
    assert integrity.count_non_finite(np.array([np.inf, -np.inf, 1], np.float32)) == 2


def test_another_tree_shape_or_dtype_is_named(run_dir):
    def refused(like, *parts):
        with pytest.raises(UserError) as caught:
            checkpoint.restore_latest(run_dir, like)
        for part in parts:
            assert part in str(caught.value)

    shapes = "checkpoint has float32[3, 11, 24], expected float32[3, 11, 32]"
    refused(make(0, width=32), f"denoiser/Conv_0/kernel: {shapes}", "more leaves)")
    like = make(0)
    like.params["encoder"]["new"] = jnp.ones(2)
    refused(like, "encoder/new: checkpoint has no such leaf, expected float32[2]")
    like = make(0)
    del like.ema["denoiser"]["half"]
    # make() shares no dict between raw and ema, so the raw one still has it.
    refused(like, "ema_denoiser/half: checkpoint has bfloat16[6], expected no such leaf")
    like = make(0)
    like.params["encoder"]["Dense_0"]["kernel"] = jnp.ones((5, 7), jnp.bfloat16)
    refused(like, "Dense_0/kernel: checkpoint has float32[5, 7], expected bfloat16[5, 7]")


# The lock


def test_the_second_holder_of_the_lock_is_told_who_has_it(tmp_path):
    lock = checkpoint.lock(tmp_path)
    with pytest.raises(UserError, match=rf"locked by pid {os.getpid()} since 20\d\d-"):
        checkpoint.lock(tmp_path)
    lock.close()
    checkpoint.lock(tmp_path).close()


@pytest.mark.slow
def test_a_killed_process_leaves_no_lock(tmp_path):
    code = (
        "import sys, time; from dpjax.training import checkpoint;"
        "checkpoint.lock(sys.argv[1]); print('locked', flush=True); time.sleep(60)"
    )
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, tmp_path]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, env=env)
    assert child.stdout.readline() == b"locked\n"
    with pytest.raises(UserError, match=f"locked by pid {child.pid} since"):
        checkpoint.lock(tmp_path)
    child.kill()
    child.wait()
    checkpoint.lock(tmp_path).close()


def test_a_platform_without_locks_is_one_line_and_only_when_a_lock_is_asked_for(tmp_path):
    """As on Windows, where there is no module fcntl: dpjax is imported, and training refuses."""
    code = (
        "import sys; sys.modules['fcntl'] = None\n"
        "import dpjax.train\n"
        "from dpjax.core.errors import UserError\n"
        "from dpjax.training import checkpoint\n"
        "try: checkpoint.lock(sys.argv[1])\n"
        "except UserError as error: print(error)"
    )
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, tmp_path]
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    (line,) = run.stdout.splitlines()
    assert "no POSIX file locks" in line


def test_a_lock_file_of_this_process_can_be_locked_once(tmp_path):
    with open(tmp_path / "lock", "a") as first, open(tmp_path / "lock", "a") as second:
        assert files.try_lock(first) and not files.try_lock(second)
