"""Training steps per second of every architecture, and the share of time spent waiting for input.

    python -m experiments.training_speed.run [--only unet_small,dit_small]

Each row is `python -m dpjax.train` for a few calls, without validation or evaluation. Its speed is
that of the median call, from metrics.jsonl; the first call, which compiles, is not counted. New
numbers replace their rows of results.json. Stop other work meanwhile. Needs data/pusht_human and
data/pusht_image (README, Commands).
"""

import argparse
import json
from pathlib import Path
import tempfile

import jax

from dpjax.core import errors
from dpjax.core.errors import UserError, choices
from dpjax.evaluation import provenance
from dpjax.runs import config_file
from dpjax.training import checkpoint, metrics
from experiments import collect

HERE = Path(__file__).parent
STATE = "data/pusht_human"
IMAGE = "data/pusht_image"
SMALL_DIT = tuple(
    f"--config.{key}" for key in ("denoiser.layers=4", "denoiser.width=128", "train.batch=128")
)
# name: (config, data, calls, steps per call, options that differ from the config)
ROWS = {
    "unet_small": ("pusht_state_small", STATE, 20, 10, ()),
    "inpainting_small": ("pusht_state_inpainting_small", STATE, 20, 10, ()),
    "transformer_small": ("pusht_state_transformer_small", STATE, 20, 10, ()),
    "dit_small": ("pusht_state_dit", STATE, 20, 10, SMALL_DIT),
    "image_unet_small": ("pusht_image_small", IMAGE, 20, 5, ()),
    "image_transformer_small": ("pusht_image_transformer_small", IMAGE, 20, 5, ()),
    "unet": ("pusht_state", STATE, 6, 1, ("--config.train.batch=64",)),
    "transformer": ("pusht_state_transformer", STATE, 12, 1, ("--config.train.batch=64",)),
    "dit": ("pusht_state_dit", STATE, 12, 1, ("--config.train.batch=64",)),
    # Four seeds side by side: one step is a step of all four.
    "unet_small_4_seeds": ("pusht_state_small", STATE, 8, 5, ("--config.train.seeds=4",)),
    "dit_small_4_seeds": ("pusht_state_dit", STATE, 8, 5, (*SMALL_DIT, "--config.train.seeds=4")),
}


def measure(name: str, folder: Path) -> dict:
    """One row: a short training in `folder`."""
    config, data, calls, size, options = ROWS[name]
    run = folder / name
    collect.run_module(
        "dpjax.train", "--config", f"configs/{config}.py", "--workdir", run,
        f"--config.data.dir={data}", "--config.val.every=0", "--config.eval.every=0",
        f"--config.log.every={size}", f"--config.train.steps={(calls + 1) * size}",
        f"--config.train.steps_per_call={size}", "--config.optim.warmup=1", *options,
    )  # fmt: skip
    run = next(run.glob("seed_*"), run)  # of several seeds the first
    # The first entry is that of the call that compiled.
    logged = [entry for entry in metrics.read(run / "metrics.jsonl") if "loss" in entry][1:]
    speeds = sorted(entry["steps_per_second"] for entry in logged)
    params, _ = checkpoint.load_params(run)
    leaves = jax.tree.leaves([params["encoder"], params["denoiser"]])
    saved, _ = config_file.read_config(run)
    return {
        "config": config,
        "options": list(options),
        "parameters": sum(leaf.size for leaf in leaves),
        "batch": saved.train.batch,
        "calls": len(speeds),
        "steps_per_second": speeds[len(speeds) // 2],
        "slowest_and_fastest": [speeds[0], speeds[-1]],
        "input_wait": sum(entry.get("input_wait", 0.0) for entry in logged) / len(logged),
        "commit": provenance.commit(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.training_speed.run")
    parser.add_argument("--only", default=",".join(ROWS), help="rows, by name")
    names = parser.parse_args().only.split(",")
    for name in names:
        if name not in ROWS:
            raise UserError(f"--only {name}: unknown; {choices(name, ROWS)}.")
    with tempfile.TemporaryDirectory() as folder:
        rows = {name: measure(name, Path(folder)) for name in names}
    for name, row in rows.items():
        print(
            f"| {name} | {row['parameters'] / 1e6:.1f} M | {row['batch']} | "
            f"{row['steps_per_second']:.2f} | {row['input_wait']:.2%} |"
        )
    path = HERE / "results.json"
    before = json.loads(path.read_text()) if path.exists() else {"rows": {}}
    result = {**before, **provenance.machine(), "versions": provenance.versions()}
    result["rows"] = {**before["rows"], **rows}
    path.write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    errors.run(main)
