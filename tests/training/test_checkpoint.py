"""What a checkpoint promises: whole or invisible, bit-equal, and never silently wrong."""

import errno
import os
from pathlib import Path
import random
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dpjax.core.errors import UserError
from dpjax.core.normalizer import Normalizer
from dpjax.training import checkpoint
from dpjax.training import state as states
from dpjax.training.checkpoint import integrity, reader

CONFIG = {"seed": 3, "widths": [8, 16]}
TX = optax.adamw(1e-3)


def make(step, *, encoder=True, seed=None, width=24):
    """A state whose numbers are a function of the step (no other process needed)."""
    rng = np.random.default_rng(step if seed is None else seed)
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    params = {
        "encoder": {"Dense_0": {"kernel": draw(5, 7)}, "a.b/c": draw(3)} if encoder else {},
        "denoiser": {
            "Conv_0": {"kernel": draw(3, 11, width), "bias": draw(width)},
            "half": jnp.asarray(draw(6), jnp.bfloat16),
            "nothing": draw(0, 3),
        },
        "normalizer": Normalizer({"obs/x.y": draw(4)}, {"obs/x.y": draw(4)}),
    }
    state = states.create(params, TX)
    opt_state = jax.tree.map(lambda x: np.asarray(x) + x.dtype.type(step), state.opt_state)
    ema = {**params, "denoiser": jax.tree.map(lambda x: x + x, params["denoiser"])}
    count = jnp.asarray(step + 5, jnp.int32)
    step = jnp.asarray(step, jnp.int32)
    return state.replace(step=step, ema=ema, ema_count=count, opt_state=opt_state)


def write(run_dir, *saved, scores=None, keep_best=9):
    """Saves make(step) for each step."""
    saver = checkpoint.Checkpoints(run_dir, keep_best=keep_best)
    for step in saved:
        saver.save(make(step), config=CONFIG, score=(scores or {}).get(step))
    saver.close()


def same(a, b):
    """Whether two trees are bit-equal, tree and dtypes included."""
    equal = lambda x, y: (
        np.asarray(x).dtype == np.asarray(y).dtype
        and np.shape(x) == np.shape(y)
        and np.asarray(x).tobytes() == np.asarray(y).tobytes()
    )
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b))
    )


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory):
    """A run with the steps 1 and 2; copy before breaking it."""
    run_dir = tmp_path_factory.mktemp("two")
    write(run_dir, 1, 2)
    return run_dir


@pytest.fixture
def run_dir(two_steps, tmp_path):
    return Path(shutil.copytree(two_steps, tmp_path / "run"))


def files_of(run_dir, step):
    """Every file of a step, in an order that doesn't change."""
    return sorted(p for p in (run_dir / "checkpoints" / str(step)).rglob("*") if p.is_file())


def flip(path, rng):
    """Flips one bit."""
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


# Round trips


@pytest.mark.parametrize("encoder", [True, False])
def test_what_is_restored_is_bit_equal(tmp_path, encoder):
    state = make(7, encoder=encoder)
    saver = checkpoint.Checkpoints(tmp_path)
    saver.save(state, config=CONFIG, score=0.5, extra={"horizon": 16})
    saver.close()
    found, said = checkpoint.restore_latest(tmp_path, make(0, encoder=encoder))
    assert same(found, state) and said == []
    assert (int(found.step), int(found.ema_count)) == (7, 12)
    meta = checkpoint.read_meta(tmp_path, 7)
    assert (meta["config"], meta["score"], meta["horizon"]) == (CONFIG, 0.5, 16)
    assert {"dpjax", "jax", "flax", "optax", "orbax", "numpy", "python"} == set(meta["versions"])


def test_every_item_restores_on_its_own(run_dir):
    for name, tree in reader.items(make(2)).items():
        others = [p for p in (run_dir / "checkpoints/2").iterdir() if p.is_dir() and p.name != name]
        for other in others:
            other.rename(run_dir / other.name)
        found, step, said = checkpoint.load_items(run_dir, [name])
        for other in others:
            (run_dir / other.name).rename(other)
        assert (step, said) == (2, [])
        assert same(list(integrity.by_path(found[name]).values()), jax.tree.leaves(tree))


def test_params_come_raw_or_averaged(run_dir):
    for which, want in (("raw", make(2).params), ("ema", make(2).ema)):
        params, step, _ = checkpoint.load_params(run_dir, which=which)
        assert same(params, want) and step == 2
        assert isinstance(params["normalizer"], Normalizer)
    params, step, _ = checkpoint.load_params(run_dir, which="raw", step=1)
    assert same(params, make(1).params) and step == 1
    with pytest.raises(UserError, match="did you mean 'ema'"):
        checkpoint.load_params(run_dir, which="emma")
    with pytest.raises(UserError, match="no item 'emcoder'; did you mean 'encoder'"):
        checkpoint.load_items(run_dir, ["emcoder"])
    with pytest.raises(UserError, match=r"no step 5 .*there are \[1, 2\]"):
        checkpoint.load_params(run_dir, step=5)


def test_the_copy_is_taken_at_once(tmp_path):
    state = jax.tree.map(lambda x: np.array(x), make(1))
    saver = checkpoint.Checkpoints(tmp_path)
    saver.save(state, config=CONFIG)
    for leaf in jax.tree.leaves(state):
        leaf[...] = 0
    saver.close()
    assert same(checkpoint.restore_latest(tmp_path, state)[0], make(1))


def test_no_step_is_not_an_error_for_a_fresh_run(tmp_path):
    assert checkpoint.restore_latest(tmp_path / "none", make(0)) == (None, [])
    with pytest.raises(UserError, match="train first"):
        checkpoint.load_params(tmp_path)


# Retention


def test_latest_and_best_are_kept(tmp_path):
    write(tmp_path, 1, 2, 3, 4, scores={1: 0.9, 2: 0.1, 3: 0.8, 4: 0.0}, keep_best=2)
    assert checkpoint.steps(tmp_path) == [1, 3, 4]
    assert same(checkpoint.restore_latest(tmp_path, make(0))[0], make(4))
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
    assert same(checkpoint.restore_latest(run_dir, make(0))[0], make(2))


# Damage


def test_flipped_bits_are_found_and_named(run_dir):
    # The arrays' own files: the flips that Orbax returns without a word.
    rng, clean = random.Random(0), run_dir.with_name("clean")
    shutil.copytree(run_dir, clean)
    named = 0
    for i in range(16):
        arrays = sorted(p for p in files_of(run_dir, 2) if p.parent.name == "d")
        largest = max(arrays, key=lambda p: p.stat().st_size)  # mostly leaves, not headers
        flip(largest if i % 2 else rng.choice(arrays), rng)
        found, said = checkpoint.restore_latest(run_dir, make(0))
        if int(found.step) == 1:
            assert same(found, make(1))
            assert len(said) == 1 and "step 2: " in said[0]
            assert any(item in said[0] for item in reader.ITEMS)
            named += "the values differ" in said[0]
        else:  # a byte that nothing reads
            assert same(found, make(2))
        shutil.rmtree(run_dir)
        shutil.copytree(clean, run_dir)
    assert named > 0


def test_a_flip_in_a_known_leaf_names_the_leaf(run_dir):
    kernel = np.asarray(make(2).ema["denoiser"]["Conv_0"]["kernel"]).tobytes()
    for path in files_of(run_dir, 2):
        content = path.read_bytes()
        if kernel in content:
            at = content.index(kernel) + 100
            path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
    found, said = checkpoint.restore_latest(run_dir, make(0))
    assert same(found, make(1))
    assert "step 2: ema_denoiser/Conv_0/kernel: the values differ" in said[0]
    # What doesn't need the leaf doesn't mind.
    assert checkpoint.load_params(run_dir, which="raw")[1] == 2
    assert checkpoint.load_params(run_dir, which="ema")[1] == 1
    with pytest.raises(UserError, match="ema_denoiser/Conv_0/kernel"):
        checkpoint.load_params(run_dir, which="ema", step=2)


@pytest.mark.parametrize("harm", ["delete", "empty", "half", "last"])
def test_torn_files_are_passed_over_or_harmless(run_dir, harm):
    torn = {"empty": lambda n: 0, "half": lambda n: n // 2, "last": lambda n: n - 1}
    # One item stands for all, whose files are alike, plus the two of the step itself.
    classes = [p for p in files_of(run_dir, 2) if p.parent.name == "2" or "denoiser" in str(p)]
    passed_over = 0
    for path in [p for p in classes if "ema_" not in str(p)]:
        content = path.read_bytes()
        if harm == "delete":
            path.unlink()
        else:
            path.write_bytes(content[: torn[harm](len(content))])
        found, said = checkpoint.restore_latest(run_dir, make(0))
        path.write_bytes(content)
        want = int(found.step)
        assert same(found, make(want))
        assert (want == 2) == (said == [])
        assert want == 1 or path.parent.name != "2"
        passed_over += want == 1
    assert passed_over >= 4


def test_what_only_looks_like_a_step_is_said_and_passed_over(run_dir):
    root = run_dir / "checkpoints"
    for name in ("99", "98.orbax-checkpoint-tmp", "abc", "007", "-3"):
        (root / name).mkdir()
    (root / "97").write_text("a file")
    found, said = checkpoint.restore_latest(run_dir, make(0))
    assert same(found, make(2)) and checkpoint.steps(run_dir) == [1, 2]
    assert len(said) == 3
    for part in ("step 99: an empty folder", "98.orbax-checkpoint-tmp", "97 is a file"):
        assert any(part in line for line in said)


def test_all_steps_damaged_is_an_error_that_lists_them(run_dir):
    (run_dir / "checkpoints/1/digest.json").unlink()
    meta = run_dir / "checkpoints/2/meta.json"
    meta.write_text(meta.read_text().replace('"seed": 3', '"seed": 4'))
    with pytest.raises(UserError) as caught:
        checkpoint.restore_latest(run_dir, make(0))
    for part in ("step 2: meta.json: the content differs", "step 1: digest.json: missing"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


# Refusals


def test_non_finite_weights_are_refused_by_name(run_dir):
    saver = checkpoint.Checkpoints(run_dir)
    for bad in (jnp.nan, jnp.inf):
        state = make(3)
        state.ema["denoiser"]["Conv_0"]["bias"] = jnp.ones(24).at[4].set(bad)
        with pytest.raises(UserError, match="ema_denoiser/Conv_0/bias has 1 non-finite"):
            saver.save(state, config=CONFIG)
    saver.close()
    assert same(checkpoint.restore_latest(run_dir, make(0))[0], make(2))


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


def test_the_second_holder_of_the_lock_is_told_who_has_it(tmp_path):
    held = checkpoint.lock(tmp_path)
    with pytest.raises(UserError, match=rf"locked by pid {os.getpid()} since 20\d\d-"):
        checkpoint.lock(tmp_path)
    held.close()
    checkpoint.lock(tmp_path).close()


def test_a_killed_process_leaves_no_lock(tmp_path):
    code = (
        "import sys, time; from dpjax.training import checkpoint;"
        "checkpoint.lock(sys.argv[1]); print('held', flush=True); time.sleep(60)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, env=child_env()
    )
    assert child.stdout.readline() == b"held\n"
    with pytest.raises(UserError, match=f"locked by pid {child.pid} since"):
        checkpoint.lock(tmp_path)
    child.kill()
    child.wait()
    checkpoint.lock(tmp_path).close()


# A full disk


def check_full_disk(run_dir, saver, make_room):
    """The error has path, needed and free; nothing is left; the next save succeeds."""
    with pytest.raises(UserError, match=r"disk is full: \d+ bytes needed, \d+ free") as caught:
        saver.save(make(3), config=CONFIG)
        saver.wait()
    assert str(run_dir) in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(os.listdir(run_dir / "checkpoints")) == ["1", "2"]
    make_room()
    saver.save(make(3), config=CONFIG)
    saver.close()
    assert same(checkpoint.restore_latest(run_dir, make(0))[0], make(3))


@pytest.mark.parametrize("seen_before", [True, False])
def test_full_tmpfs(run_dir, tmp_path, monkeypatch, seen_before):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", disk]).returncode:
        pytest.skip("mounting a tmpfs is not permitted here")
    try:
        shutil.copytree(run_dir, disk / "run")
        ballast = disk / "ballast"
        with open(ballast, "wb") as file:
            free = shutil.disk_usage(disk).free
            file.write(bytes(free - (4096 if seen_before else 20480)))
        if not seen_before:  # as with a quota: the disk says that there is room
            real = shutil.disk_usage
            monkeypatch.setattr(shutil, "disk_usage", lambda p: real(p)._replace(free=1 << 40))
        saver = checkpoint.Checkpoints(disk / "run")
        check_full_disk(disk / "run", saver, ballast.unlink)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_write_that_finds_no_space(run_dir, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    saver = checkpoint.Checkpoints(run_dir)
    monkeypatch.setattr(integrity, "write_sealed", full)
    check_full_disk(run_dir, saver, monkeypatch.undo)


def test_a_run_folder_that_vanishes_is_said(tmp_path):
    saver = checkpoint.Checkpoints(tmp_path / "run")
    (tmp_path / "run").write_text("no folder any more")
    saver.save(make(1), config=CONFIG)
    with pytest.raises(UserError, match="checkpoint of step 1 in .*was not completed"):
        saver.close()


# kill -9

LOOP = """
import sys, time
sys.path[:0] = sys.argv[2:4]
import test_checkpoint as tests
from dpjax.training import checkpoint
held = checkpoint.lock(sys.argv[1])
state, said = checkpoint.restore_latest(sys.argv[1], tests.make(0))
first = 0 if state is None else int(state.step)
assert state is None or tests.same(state, tests.make(first))
print("restored", first, flush=True)
saver = checkpoint.Checkpoints(sys.argv[1], keep_best=2)
last = None
for step in range(first + 1, first + 1 + int(sys.argv[4])):
    saver.save(tests.make(step), config=tests.CONFIG, score=-step)
    if last is not None:
        print("complete", last, flush=True)
    last = step
saver.close()
print("complete", last, flush=True)
"""


def child_env(**more):
    """One thread and no GPU for the child; it imports dpjax from here."""
    root = str(Path(__file__).parents[2])
    return {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": root, **more}


def save_loop(run_dir, count, *, kill_at=None, kill_after=None):
    """Runs LOOP in a process: (exit code, step restored, last complete step)."""
    tests = Path(__file__).parent
    child = subprocess.Popen(
        [sys.executable, "-c", LOOP, run_dir, tests, tests.parent, str(count)],
        stdout=subprocess.PIPE,
        text=True,
        env=child_env(**({"DPJAX_KILL_AT": kill_at} if kill_at else {})),
    )
    first = int(child.stdout.readline().split()[1])
    if kill_after is not None:
        time.sleep(kill_after)
        child.kill()
    lines = child.stdout.read().split("\n")[:-1]  # a kill may cut the last one off
    done = [int(line.split()[1]) for line in lines if line.startswith("complete")]
    return child.wait(), first, max(done, default=first)


def newest(run_dir):
    """The step a restore gives, after checking that it is that step's state."""
    state, _ = checkpoint.restore_latest(run_dir, make(0))
    assert same(state, make(int(state.step)))
    return int(state.step)


POINTS = {  # point: (the kill, the newest step after it)
    "before_save": ("before_save:2", 3),
    "after_arrays": ("after_arrays:2", 3),
    "before_commit": ("before_commit:2", 3),
    "during_delete": ("during_delete:2", 4),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_a_named_point_loses_at_most_the_save_in_flight(run_dir, point):
    kill_at, want = POINTS[point]
    code, first, done = save_loop(run_dir, 4, kill_at=kill_at)
    assert code == -signal.SIGKILL and first == 2
    assert newest(run_dir) == want >= done
    # The next one starts from there, cleans up and goes on.
    write(run_dir, want + 1, keep_best=2)
    assert newest(run_dir) == want + 1
    assert all(name.isdigit() for name in os.listdir(run_dir / "checkpoints"))


def test_kills_at_random_times_lose_at_most_the_save_in_flight(run_dir):
    rng, reached = random.Random(time.time_ns()), 2
    for longest in (0.5, 1.5, 3.0):
        wait = rng.uniform(0.05, longest)
        code, first, done = save_loop(run_dir, 60, kill_after=wait)
        assert code == -signal.SIGKILL
        assert first == reached, f"killed after {wait} s"
        reached = newest(run_dir)
        assert done <= reached, f"killed after {wait} s"
