"""Makes the evidence in this folder: what dpjax did at commit cb7fdeb, before its files moved.

    git checkout cb7fdeb && PYTHONPATH=.:tests python path/to/make.py OUT

OUT/trained/<name>.tar.xz  a training of seconds by each method: a run folder as it was left
OUT/actions/<name>.npz  what its policy does with 20 observations, under each sampler
OUT/imported/<name>.npz the same of imported checkpoints, one of each layout
OUT/policy.stablehlo, .json    the run `unet` exported
OUT/original_small.tar.xz  the run folder that importing original_small.ckpt left
"""

from pathlib import Path
import shutil
import subprocess
import sys

import checkpoints
import jax
import numpy as np
import tiny

from dpjax import build, cameras, export, exported, import_weights
from dpjax.data import rlds

TESTS = Path(tiny.__file__).parent
ROWS = 20
BASE = ["train.steps=4", "save.every=4", "save.keep_best=1", "val.every=0", "optim.warmup=1"]
TRAININGS = {  # name: (config of tests/, data set, changes)
    "unet": ("tiny_config.py", "state", []),
    "local": ("tiny_config.py", "state", ["condition=local"]),
    "inpaint": ("tiny_config.py", "state", ["condition=inpaint"]),
    "flow": (
        "tiny_config.py",
        "state",
        ["schedule.name=flow", "predict=velocity", "sampler.name=euler"],
    ),
    "meanflow": (
        "tiny_config.py",
        "state",
        [
            "method=meanflow",
            "schedule.name=flow",
            "schedule.num_levels=1",
            "predict=velocity",
            "sampler.name=euler",
        ],
    ),
    "transformer": ("tiny_transformer.py", "state", []),
    "dit": ("DIT", "state", []),
    "image": ("tiny_image.py", "image", []),
    "relative": (
        "tiny_own.py",
        "pose",
        [
            "spaces.layouts.pose=3 axis_angle 1",
            "spaces.layouts.action=3 axis_angle 1",
            "spaces.relative=pose",
        ],
    ),
}
SAMPLERS = {
    "flow": [("euler", 4, 0.0), ("heun", 4, 0.0), ("euler", 4, 0.5)],
    "meanflow": [("euler", 1, 0.0), ("euler", 4, 0.0)],
    "inpaint": [("ddpm", 20, 0.0), ("ddim", 4, 0.0), ("dpm_solver", 4, 0.0), ("heun", 4, 0.0)],
}
USUAL = [*SAMPLERS["inpaint"], ("ddim", 4, 0.5)]
DIT = """
import tiny_config
def get_config():
    config = tiny_config.get_config()
    config.denoiser = dict(name="dit", layers=1, heads=2, width=8)
    return config
"""


def poses():
    """Walks of a pose [position, axis-angle, gripper], its next step as the action."""
    rng = np.random.default_rng(5)
    for length in tiny.LENGTHS[:5]:
        walk = rng.normal(0, 0.05, (length + 1, 7)).cumsum(0).astype(np.float32)
        yield {"pose": walk[:-1], "action": walk[1:]}


def data(folder):
    """The three data sets."""
    tiny.write(folder / "state")
    tiny.write_images(folder / "image")
    rlds.write(folder / "pose", poses(), observations=("pose",), description="poses")


def observations(spec, observed, rng):
    """20 of them, in the units of the data: images of noise, numbers from 0 to 1."""
    rows = cameras.rows(spec, observed)
    return {
        key: rng.integers(0, 256, (ROWS, *row.shape)).astype(np.uint8)
        if row.dtype == np.uint8
        else (300 * rng.uniform(size=(ROWS, *row.shape))).astype(np.float32)
        for key, row in rows.items()
    }


def act(run_dir, plans, scale=1.0):
    """{label: actions [20, Tp, Da]} and the observations, as arrays of one npz."""
    made = {}
    for name, steps, warm in plans:
        run = build.load(run_dir, sampler=name, steps=steps, warm_start=warm)
        rng = np.random.default_rng(7)
        obs = observations(run.spec, run.config.horizon.obs, rng)
        previous = None
        if warm:
            shape = (ROWS, run.config.horizon.predict, run.spec.action)
            previous = (300 * rng.uniform(size=shape)).astype(np.float32)
            previous[:, -4:] = np.nan
        made[f"{name}-{steps}-{warm:g}"] = np.asarray(run.plan(jax.random.key(3), obs, previous))
    return made


def layouts(folder):
    """{name: checkpoint} of each layout that import_weights knows."""
    found = {"original_small": TESTS / "golden" / "original_small.ckpt"}
    for name in sorted(path.stem for path in (TESTS / "golden").glob("dp_*.npz")):
        state, cfg, _, _ = checkpoints.lowdim(name)
        found[name] = checkpoints.save(folder / f"{name}.ckpt", state, cfg)
    for name, old in (("lerobot_image_one_camera", True), ("lerobot_image_two_cameras", False)):
        found[name], meta, _ = checkpoints.lerobot(folder / name, name, old=old)
    state, cfg = checkpoints.hybrid(checkpoints.weights(meta), meta)
    found["hybrid"] = checkpoints.save(folder / "hybrid.ckpt", state, cfg)
    state, cfg = checkpoints.multi(checkpoints.weights(meta), meta, shared=True, statistics=True)
    found["multi"] = checkpoints.save(folder / "multi.ckpt", state, cfg)
    return found


def main(out):
    work = out / "work"
    shutil.rmtree(work, ignore_errors=True)
    for name in ("actions", "imported", "trained"):
        (out / name).mkdir(parents=True, exist_ok=True)
    data(work)
    (work / "dit.py").write_text(DIT)
    for name, (config, which, changes) in TRAININGS.items():
        if (out / "trained" / name / "checkpoints").exists():
            continue
        path = work / "dit.py" if config == "DIT" else TESTS / config
        args = [f"--config={path}", f"--workdir=trained/{name}"]
        args += [f"--config.{text}" for text in [f"data.dir=work/{which}", *BASE, *changes]]
        subprocess.run([sys.executable, "-m", "dpjax.train", *args], check=True, cwd=out)
        shutil.rmtree(out / "trained" / name / "tensorboard", ignore_errors=True)
    for name in TRAININGS:
        plans = SAMPLERS.get(name, USUAL)
        np.savez_compressed(out / "actions" / f"{name}.npz", **act(out / "trained" / name, plans))
        print(name, flush=True)
    for name, source in layouts(work).items():
        run_dir = out / name if name == "original_small" else work / f"run-{name}"
        shutil.rmtree(run_dir, ignore_errors=True)
        import_weights.main([str(source), "--run", str(run_dir)])
        plans = [("ddim", 4, 0.0)] if "dp_" not in name else [("ddim", 4, 0.0), ("ddpm", 100, 0.0)]
        made = act(run_dir, plans)
        np.savez_compressed(out / "imported" / f"{name}.npz", **made)
        print(name, flush=True)
    export.main(["--run", str(out / "trained" / "unet"), "--out", str(out / "policy.stablehlo")])
    run = build.load(out / "trained" / "unet")
    obs = observations(run.spec, run.config.horizon.obs, np.random.default_rng(7))
    actions = exported.load(out / "policy.stablehlo")(jax.random.key(3), obs)
    np.savez_compressed(out / "exported.npz", exported=actions)
    shutil.rmtree(work)
    # Only what acts is kept of the run with a camera: its optimizer would be 8 MB.
    for item in ("optimizer", "encoder", "denoiser"):
        shutil.rmtree(out / "trained" / "image" / "checkpoints" / "4" / item)
    for folder in (*(out / "trained").iterdir(), out / "original_small"):
        subprocess.run(
            ["tar", "-cJf", f"{folder}.tar.xz", folder.name], check=True, cwd=folder.parent
        )
        shutil.rmtree(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
