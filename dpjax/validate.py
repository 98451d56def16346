"""Scores the checkpoints of a run on demonstrations that it was not trained on.

    python -m dpjax.validate --run runs/mine [--data data/other] [--samples 8]

For whom there is no simulator: the action error of sampled chunks chooses a checkpoint.
Writes validation.json and validation.png into the run folder. An error says how well the
demonstrations are imitated, not how well the task is done.
"""

import argparse
import json
import logging
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict
import numpy as np
from tqdm import tqdm

from dpjax.config import build, dataset, flags
from dpjax.core.errors import UserError
from dpjax.core.types import Batch
from dpjax.evaluation import imitation, plots, provenance
from dpjax.runs import evaluators
from dpjax.runs.config_file import read_config
from dpjax.training import checkpoint

ROWS = 64  # windows in one program

log = logging.getLogger("dpjax")


class Found(NamedTuple):
    """What a checkpoint does on the held-out windows.

    chunks: [samples, B, Tp, Da]. errors: [samples, B], root mean squares, data units.
    """

    step: int
    loss: float
    chunks: np.ndarray
    errors: np.ndarray

    def row(self) -> dict:
        """As validation.json has it."""
        return {
            "step": self.step,
            "loss": self.loss,
            "action_error": float(self.errors.mean()),
            "action_error_best": float(self.errors.min(0).mean()),
        }


def arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dpjax.validate",
        description="Score the checkpoints of a run on demonstrations that were held out.",
    )
    parser.add_argument("--run", required=True, help="run folder that dpjax.train made")
    parser.add_argument(
        "--data", help="RLDS directory, all of it unseen (default: what the run held out)"
    )
    parser.add_argument("--windows", type=int, default=256, help="evenly spread (default 256)")
    parser.add_argument("--samples", type=int, default=8, help="chunks a window (default 8)")
    parser.add_argument("--sampler", choices=sorted(build.SAMPLERS), help="default: the run's")
    parser.add_argument("--steps", type=int, help="sampling steps S (default: the run's)")
    parser.add_argument("--weights", choices=("ema", "raw"), default="ema")
    parser.add_argument("--out", help="folder for what is made (default: the run folder)")
    given = parser.parse_args(argv)
    for name in ("windows", "samples"):
        if getattr(given, name) < 1:
            raise UserError(f"--{name} {getattr(given, name)} must be at least 1.")
    return given


def held_out(config: ConfigDict, spec, given) -> dataset.Data:
    """The run's own held-out episodes, or those of --data, which must look the same."""
    config = config.copy_and_resolve_references()
    if given.data:
        with config.unlocked():
            config.data.update(dir=given.data, val_fraction=0.0, weights="", max_episodes=0)
            config.data.mirror = False
    data = dataset.read(config)
    seen = dataset.spec(data)
    if (seen.observations, seen.action) != (spec.observations, spec.action):
        raise UserError(
            f"{data.train.source}: expected observations {spec.observations} and {spec.action} "
            f"actions, got {seen.observations} and {seen.action}: it is not what {given.run} "
            "was trained for."
        )
    if given.data:
        return data._replace(val=data.train)
    if seen.data != spec.data:
        raise UserError(
            f"{data.train.source} is not the data that {given.run} was trained on (fingerprint "
            f"{spec.data} then, {seen.data} now), so nothing of it is surely unseen: give "
            "--data with demonstrations that are."
        )
    if not len(data.val.ends):
        raise UserError(
            f"{given.run} held nothing out (config.data.val_fraction="
            f"{config.data.val_fraction}): give --data with demonstrations that it has not seen."
        )
    return data


def batches(config: ConfigDict, data: dataset.Data, count: int) -> list[tuple[Batch, int]]:
    """Up to `count` windows, evenly spread, as batches of one size and how many rows count."""
    windows = dataset.place(config, data, "val")
    ids = np.unique(np.linspace(0, len(windows) - 1, count).astype(int))
    size = min(ROWS, len(ids))
    made = []
    for start in range(0, len(ids), size):
        part = ids[start : start + size]
        padded = np.concatenate([part, np.repeat(part[-1:], size - len(part))])
        made.append((evaluators.first_batch(config, windows, padded), len(part)))
    return made


def score(run, look, step: int, parts, which: str, bar) -> Found:
    """One checkpoint on all batches. look: jitted `validation.look`."""
    params, _ = checkpoint.load_params(run, which=which, step=step)
    params, total, weight, chunks = jax.device_put(params), 0.0, 0.0, []
    for i, (batch, rows) in enumerate(parts):
        rng = jax.random.fold_in(jax.random.key(0), i)  # the same noise for every checkpoint
        (loss, sums), made = jax.device_get(look(params, rng, batch))
        share = rows / made.shape[1]  # the padding is the last window again
        total, weight = total + loss * share, weight + sums["weight"] * share
        chunks.append(made[:, :rows])
        bar.update(1)
    chunks = np.concatenate(chunks, 1)
    actions, mask = demonstrated(parts)
    found = imitation.errors(chunks, actions, mask)
    return Found(step, float(total / weight), chunks, np.asarray(found))


def demonstrated(parts) -> tuple[np.ndarray, np.ndarray]:
    """Actions [B, Tp, Da] and mask [B, Tp] of all batches, without padding."""
    pick = lambda name: np.concatenate([np.asarray(getattr(b, name))[:n] for b, n in parts])
    return pick("actions"), pick("mask")


def main(argv=None) -> int:
    given = arguments(argv)
    logging.basicConfig(level=logging.WARNING, format="dpjax: %(message)s", force=True)
    config, spec = read_config(given.run)
    config = build.sampling(config, sampler=given.sampler, steps=given.steps)
    steps = checkpoint.steps(given.run)
    if not steps:
        raise UserError(f"{given.run}: no checkpoint there yet.")
    data = held_out(config, spec, given)
    parts = batches(config, data, given.windows)
    policy = build.policy(config, None, spec)
    look = jax.jit(lambda *inputs: imitation.look(policy, *inputs, given.samples))
    with tqdm(total=len(steps) * len(parts), unit="batch", desc="validate") as bar:
        found = [score(given.run, look, step, parts, given.weights, bar) for step in steps]
    return report(given, config, data, parts, found)


def report(given, config, data, parts, found: list[Found]) -> int:
    """The table, validation.json and validation.png."""
    actions, mask = demonstrated(parts)
    rows = [one.row() for one in found]
    best = min(range(len(rows)), key=lambda i: rows[i]["action_error"])
    still = imitation.spread(actions, mask)
    result = {
        "checkpoints": rows,
        "lowest": rows[best]["step"],
        "spread": still,
        "windows": len(actions),
        "episodes": len(data.val.ends),
        "samples": given.samples,
        "sampler": f"{config.sampler.name}-{config.sampler.num_steps}",
        "weights": given.weights,
        "data": data.val.source,
        **provenance.provenance(),
    }
    out = Path(given.out or given.run)
    out.mkdir(parents=True, exist_ok=True)
    (out / "validation.json").write_text(json.dumps(result, indent=2) + "\n")
    picture = out / "validation.png"
    picture.write_bytes(
        plots.chunks_over_demonstrations(actions, mask, found[best].chunks, config.horizon)
    )
    print(imitation.table(rows, best, given.samples))
    print(
        f"{len(actions)} windows of {len(data.val.ends)} held-out episodes, {given.samples} chunks "
        f"each; the demonstrated actions themselves spread by {still:.4g} around their mean"
    )
    print(f"lowest error: step {rows[best]['step']}  {picture}")
    return 0


if __name__ == "__main__":
    flags.run(main)
