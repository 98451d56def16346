"""What dpjax did at commit cb7fdeb, before its files moved, it still does.

Run folders, imported checkpoints and an exported file of that commit, and the actions that it
made from them: tests/golden/cb7fdeb, by the script there. Numbers agree to 1e-5 of their size,
under XLA's ordinary compilation:

    DPJAX_TEST_ORDINARY=1 python -m pytest tests/test_evidence.py
"""

from pathlib import Path
import shutil
import tarfile

import jax
import numpy as np
import pytest
from support import checkpoints

from dpjax import import_weights
from dpjax.config import cameras
from dpjax.inference import exported
from dpjax.runs import run as run_lib

# Recorded on a processor with AVX-512. Without it XLA rounds differently, and networks that have
# hardly learned amplify that: commit cb7fdeb itself then differs by more than 1e-5.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (Path("/proc/cpuinfo").exists() and "avx512f" in Path("/proc/cpuinfo").read_text()),
        reason="recorded with AVX-512: another processor rounds differently",
    ),
]

EVIDENCE = Path(__file__).parent / "golden" / "cb7fdeb"
RUNS = sorted(path.name.partition(".")[0] for path in (EVIDENCE / "trained").iterdir())
KEY = 3


def recorded(path):
    """{label: actions} of an npz."""
    with np.load(path, allow_pickle=False) as arrays:
        return {key: x for key, x in arrays.items() if key[:3] != "obs" and key != "previous"}


def draw(run):
    """(20 observations, previous actions): images of noise and numbers, as they were drawn."""
    rng, horizon = np.random.default_rng(7), run.config.horizon
    rows = cameras.observation_shapes(run.spec, horizon.obs)
    obs = {
        key: rng.integers(0, 256, (20, *row.shape)).astype(np.uint8)
        if row.dtype == np.uint8
        else (300 * rng.uniform(size=(20, *row.shape))).astype(np.float32)
        for key, row in rows.items()
    }
    shape = (20, horizon.predict, run.spec.action)
    previous = (300 * rng.uniform(size=shape)).astype(np.float32)
    previous[:, -4:] = np.nan
    return obs, previous


def unpacked(name, folder):
    """A run folder of that commit."""
    with tarfile.open(EVIDENCE / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / Path(name).name


def settings(label):
    """ "ddim-4-0.5" -> the options of `build.load`."""
    name, steps, warm_start = label.split("-")
    return dict(sampler=name, steps=int(steps), warm_start=float(warm_start))


def check(run_dir, path):
    """The run's actions are those recorded, under each sampler."""
    for label, want in recorded(path).items():
        options = settings(label)
        run = run_lib.load(run_dir, **options)
        obs, previous = draw(run)
        last = previous if options["warm_start"] else None
        got = np.asarray(run.sample_actions(jax.random.key(KEY), obs, last))
        np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max(), err_msg=label)


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_each_method_acts_as_it_did(name, tmp_path):
    check(unpacked(f"trained/{name}", tmp_path), EVIDENCE / "actions" / f"{name}.npz")


def test_an_exported_file_acts_as_it_did(tmp_path):
    obs, _ = draw(run_lib.load(unpacked("trained/unet", tmp_path)))
    want = recorded(EVIDENCE / "exported.npz")["exported"]
    got = exported.load(EVIDENCE / "policy.stablehlo")(jax.random.key(KEY), obs)
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


def test_a_run_that_was_imported_acts_as_it_did(tmp_path):
    check(unpacked("original_small", tmp_path), EVIDENCE / "imported" / "original_small.npz")


def source(name, folder):
    """The checkpoint that `name` was imported from, made again."""
    if name == "original_small":
        return checkpoints.GOLDEN / "original_small.ckpt"
    if name.startswith("dp_"):
        return checkpoints.save(folder / f"{name}.ckpt", *checkpoints.lowdim(name)[:2])
    if name.startswith("lerobot"):
        return checkpoints.lerobot(folder / name, name, old="one" in name)[0]
    meta = checkpoints.lerobot(folder / "meta", "lerobot_image_two_cameras")[1]
    state = checkpoints.weights(meta)
    if name == "hybrid":
        return checkpoints.save(folder / "hybrid.ckpt", *checkpoints.hybrid(state, meta))
    made = checkpoints.multi(state, meta, shared=True, statistics=True)
    return checkpoints.save(folder / "multi.ckpt", *made)


@pytest.mark.parametrize("name", sorted(path.stem for path in (EVIDENCE / "imported").iterdir()))
def test_a_checkpoint_of_each_layout_imports_as_it_did(name, tmp_path):
    import_weights.main([str(source(name, tmp_path)), "--run", str(tmp_path / "run")])
    check(tmp_path / "run", EVIDENCE / "imported" / f"{name}.npz")
    shutil.rmtree(tmp_path / "run")
