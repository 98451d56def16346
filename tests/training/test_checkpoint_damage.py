"""Damaged checkpoints are skipped with a warning that names the damage; never silently wrong."""

import errno
import os
import random
import shutil
import subprocess

import numpy as np
import pytest
from support import states
from support.states import CONFIG, files_of, flip, make, same

from dpjax.core import files
from dpjax.core.errors import UserError
from dpjax.training import checkpoint
from dpjax.training.checkpoint import layout

two_steps = states.two_steps  # fixtures
run_dir = states.run_dir


def restore(run_dir, caplog):
    """What is restored, and the warnings."""
    caplog.clear()
    return checkpoint.restore_latest(run_dir, make(0)), list(caplog.messages)


def test_flipped_bits_are_noticed_and_named(run_dir, caplog):
    # The arrays' own files: the flips that Orbax returns without a word.
    rng = random.Random(0)
    clean = run_dir.with_name("clean")
    shutil.copytree(run_dir, clean)
    named = 0
    for i in range(16):
        arrays = sorted(p for p in files_of(run_dir, 2) if p.parent.name == "d")
        largest = max(arrays, key=lambda p: p.stat().st_size)  # mostly leaves, not headers
        flip(largest if i % 2 else rng.choice(arrays), rng)
        state, warnings = restore(run_dir, caplog)
        if int(state.step) == 1:
            assert same(state, make(1))
            assert len(warnings) == 1 and "step 2: " in warnings[0]
            assert any(item in warnings[0] for item in layout.ITEMS)
            named += "the values differ" in warnings[0]
        else:  # a byte that nothing reads
            assert same(state, make(2))
        shutil.rmtree(run_dir)
        shutil.copytree(clean, run_dir)
    assert named > 0


def test_a_flip_in_a_known_leaf_names_the_leaf(run_dir, caplog):
    kernel = np.asarray(make(2).ema["denoiser"]["Conv_0"]["kernel"]).tobytes()
    for path in files_of(run_dir, 2):
        content = path.read_bytes()
        if kernel in content:
            at = content.index(kernel) + 100
            path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
    state, warnings = restore(run_dir, caplog)
    assert same(state, make(1))
    assert "step 2: ema_denoiser/Conv_0/kernel: the values differ" in warnings[0]
    # What does not need the leaf still loads.
    assert checkpoint.load_params(run_dir, which="raw")[1] == 2
    assert checkpoint.load_params(run_dir, which="ema")[1] == 1
    with pytest.raises(UserError, match="ema_denoiser/Conv_0/kernel"):
        checkpoint.load_params(run_dir, which="ema", step=2)


@pytest.mark.parametrize("harm", ["delete", "empty", "half", "last"])
def test_torn_files_are_skipped_or_harmless(run_dir, harm, caplog):
    torn = {"empty": lambda n: 0, "half": lambda n: n // 2, "last": lambda n: n - 1}
    # One item stands for all, whose files are alike, plus the two of the step itself.
    classes = [p for p in files_of(run_dir, 2) if p.parent.name == "2" or "denoiser" in str(p)]
    skipped = 0
    for path in [p for p in classes if "ema_" not in str(p)]:
        content = path.read_bytes()
        if harm == "delete":
            path.unlink()
        else:
            path.write_bytes(content[: torn[harm](len(content))])
        state, warnings = restore(run_dir, caplog)
        path.write_bytes(content)
        step = int(state.step)
        assert same(state, make(step))
        assert (step == 2) == (warnings == [])
        assert step == 1 or path.parent.name != "2"
        skipped += step == 1
    assert skipped >= 4


def test_what_only_looks_like_a_step_is_skipped_with_a_warning(run_dir, caplog):
    root = run_dir / "checkpoints"
    for name in ("99", "98.orbax-checkpoint-tmp", "abc", "007", "-3"):
        (root / name).mkdir()
    (root / "97").write_text("a file")
    state, warnings = restore(run_dir, caplog)
    assert same(state, make(2)) and checkpoint.steps(run_dir) == [1, 2]
    assert len(warnings) == 3
    for part in ("step 99: an empty folder", "98.orbax-checkpoint-tmp", "97 is a file"):
        assert any(part in line for line in warnings)


def test_all_steps_damaged_is_an_error_that_lists_them(run_dir):
    (run_dir / "checkpoints/1/digest.json").unlink()
    meta = run_dir / "checkpoints/2/meta.json"
    meta.write_text(meta.read_text().replace('"seed": 3', '"seed": 4'))
    with pytest.raises(UserError) as caught:
        checkpoint.restore_latest(run_dir, make(0))
    for part in ("step 2: meta.json: the content differs", "step 1: digest.json: missing"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


# A full disk


def check_full_disk(run_dir, checkpoints, make_room):
    """The error has path, needed and free; nothing is left; the next save succeeds."""
    with pytest.raises(UserError, match=r"disk is full: \d+ bytes needed, \d+ free") as caught:
        checkpoints.save(make(3), config=CONFIG)
        checkpoints.wait()
    assert str(run_dir) in str(caught.value) and "\n" not in str(caught.value)
    assert sorted(os.listdir(run_dir / "checkpoints")) == ["1", "2"]
    make_room()
    checkpoints.save(make(3), config=CONFIG)
    checkpoints.close()
    assert same(checkpoint.restore_latest(run_dir, make(0)), make(3))


@pytest.mark.slow
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
        if not seen_before:  # as with a quota: the disk reports space that it does not give
            real = shutil.disk_usage
            monkeypatch.setattr(shutil, "disk_usage", lambda p: real(p)._replace(free=1 << 40))
        checkpoints = checkpoint.Checkpoints(disk / "run")
        check_full_disk(disk / "run", checkpoints, ballast.unlink)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_a_write_without_space(run_dir, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    checkpoints = checkpoint.Checkpoints(run_dir)
    monkeypatch.setattr(files, "write_atomically", full)
    check_full_disk(run_dir, checkpoints, monkeypatch.undo)


def test_a_run_folder_that_vanishes_is_named(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path / "run")
    (tmp_path / "run").write_text("not a folder any more")
    checkpoints.save(make(1), config=CONFIG)
    with pytest.raises(UserError, match="checkpoint of step 1 in .*was not completed"):
        checkpoints.close()
