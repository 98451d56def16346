"""Scores the checkpoints of a run on demonstrations that it was not trained on.

    python -m dpjax.validate --run runs/mine [--data data/other] [--samples 8]

Without a simulator the checkpoint is chosen here, by the action error of sampled action chunks.
Writes validation.json and validation.png into the run folder. The error says how well the
demonstrations are imitated, not how well the task is done.
"""

import argparse
from collections.abc import Callable, Sequence
import json
import logging
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict
import numpy as np
from tqdm import tqdm

from dpjax.config import build, dataset, flags
from dpjax.core import extras
from dpjax.core.errors import UserError
from dpjax.core.spec import Spec
from dpjax.core.types import Batch, Params
from dpjax.evaluation import imitation, plots, provenance
from dpjax.runs import outputs, shipped
from dpjax.runs.config_file import read_config
from dpjax.training import checkpoint

BATCH = 64  # windows in one call of the compiled program


class Score(NamedTuple):
    """How a checkpoint does on the held-out windows.

    loss: the mean over all windows.
    chunks: [samples, W, Tp, Da], the sampled action chunks.
    errors: [samples, W], their root mean square errors in the data's units.
    """

    step: int
    loss: float
    chunks: np.ndarray
    errors: np.ndarray

    def entry(self) -> dict[str, float]:
        """As validation.json has it."""
        return {
            "step": self.step,
            "loss": self.loss,
            "action_error": float(self.errors.mean()),
            "action_error_best": float(self.errors.min(0).mean()),
        }


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command-line arguments, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m dpjax.validate", description="Score checkpoints on held-out demonstrations."
    )
    add = parser.add_argument
    add("--run", required=True, help="a run folder, or the name of a policy such as pusht_demo")
    add("--data", help="RLDS folder that the run has not seen (default: what the run held out)")
    add("--windows", type=int, default=256, help="evenly spread (default 256)")
    add("--samples", type=int, default=8, help="action chunks per window (default 8)")
    add("--sampler", choices=sorted(build.SAMPLERS), help="default: the run's")
    add("--steps", type=int, help="sampling steps S (default: the run's)")
    add("--weights", choices=("ema", "raw"), default="ema")
    add("--out", help="folder for what is written (default: the run folder)")
    args = parser.parse_args(argv)
    for name in ("windows", "samples"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)} must be at least 1.")
    return args


def held_out(config: ConfigDict, spec: Spec, args: argparse.Namespace) -> dataset.Data:
    """The data with what is validated on in `val`: the run's held-out episodes, or --data.

    Raises UserError if the data is not of the run's sizes, if nothing was held out, or if the
    data has changed since the training, so that held-out episodes may have been trained on.
    """
    config = config.copy_and_resolve_references()
    # All of --data is validated on: nothing is held out of it, left out or mirrored.
    if args.data:
        with config.unlocked():
            config.data.update(dir=args.data, val_fraction=0.0, weights="", max_episodes=0)
            config.data.mirror = False
    data = dataset.read(config)
    seen = dataset.spec(data)
    if (seen.observations, seen.action) != (spec.observations, spec.action):
        raise UserError(
            f"{data.train.source}: expected observations {spec.observations} and {spec.action} "
            f"actions, got {seen.observations} and {seen.action}: it is not what {args.run} "
            "was trained for."
        )
    if args.data:
        return data._replace(val=data.train)  # with val_fraction=0 all of it is in `train`
    # The split depends on the data. If that has changed, what is held out of it now may have been
    # trained on.
    if seen.data != spec.data:
        raise UserError(
            f"{data.train.source} is not the data that {args.run} was trained on (fingerprint "
            f"{spec.data} then, {seen.data} now), so nothing of it is surely unseen: give "
            "--data with demonstrations that are."
        )
    if not len(data.val.ends):
        raise UserError(
            f"{args.run} held nothing out (config.data.val_fraction="
            f"{config.data.val_fraction}): give --data with demonstrations that it has not seen."
        )
    return data


def batches(config: ConfigDict, data: dataset.Data, count: int) -> list[tuple[Batch, int]]:
    """Up to `count` windows of data.val, evenly spread: [(batch, how many examples count)].

    All are of one size, for one compiled program; the last one is padded with its last window.
    """
    windows = dataset.val_windows(config, data)
    ids = np.unique(np.linspace(0, len(windows) - 1, count).astype(int))
    size = min(BATCH, len(ids))
    parts = []
    for start in range(0, len(ids), size):
        part = ids[start : start + size]
        padded = np.concatenate([part, np.repeat(part[-1:], size - len(part))])
        parts.append((dataset.batch_of(windows, padded), len(part)))
    return parts


def demonstrated(batches: Sequence[tuple[Batch, int]]) -> tuple[np.ndarray, np.ndarray]:
    """Actions [W, Tp, Da] and mask [W, Tp] of all batches, without padding."""
    join = lambda name: np.concatenate([np.asarray(getattr(b, name))[:n] for b, n in batches])
    return join("actions"), join("mask")


def checkpoints(args: argparse.Namespace) -> dict[int, Callable[[], Params]]:
    """{training step: a function that reads its params}: of a run all, of a shipped policy one."""
    folder = outputs.shipped_folder(args.run)
    if folder is not None:
        if args.weights != "ema":
            raise UserError(
                f"--weights {args.weights}: {args.run} comes with its EMA weights only."
            )
        params, step = shipped.load_params(folder)
        return {step: lambda: params}
    steps = checkpoint.steps(args.run)
    if not steps:
        raise UserError(f"{args.run}: no checkpoint there yet.")
    # They are read one after the other, so that one at a time is in memory.
    read = lambda step: checkpoint.load_params(args.run, which=args.weights, step=step)[0]
    return {step: lambda step=step: read(step) for step in steps}


def score(
    compiled: Callable,
    params: Params,
    step: int,
    batches: Sequence[tuple[Batch, int]],
    bar: tqdm,
) -> Score:
    """Scores one checkpoint on all batches. compiled: a jitted `imitation.loss_and_samples`."""
    params = jax.device_put(params)
    total = 0.0
    weight = 0.0
    chunks = []
    for i, (batch, count) in enumerate(batches):
        # The same noise for every checkpoint: their difference is then not one of luck.
        rng = jax.random.fold_in(jax.random.key(0), i)
        (loss, sums), sampled = jax.device_get(compiled(params, rng, batch))
        # A padded batch counts by its share of real windows: the padding repeats one of them.
        share = count / sampled.shape[1]
        total = total + loss * share
        weight = weight + sums["weight"] * share
        chunks.append(sampled[:, :count])
        bar.update(1)
    chunks = np.concatenate(chunks, 1)  # [samples, W, Tp, Da]
    errors = imitation.errors(chunks, *demonstrated(batches))
    return Score(step, float(total / weight), chunks, np.asarray(errors))


def report(
    args: argparse.Namespace,
    config: ConfigDict,
    data: dataset.Data,
    batches: Sequence[tuple[Batch, int]],
    scores: Sequence[Score],
) -> None:
    """Writes validation.json and validation.png, and prints the table."""
    # 1. The checkpoint with the lowest error, and an error that is bad, to compare it with.
    actions, mask = demonstrated(batches)
    entries = [score.entry() for score in scores]
    best = min(range(len(entries)), key=lambda i: entries[i]["action_error"])
    spread = imitation.spread(actions, mask)
    # 2. validation.json, and the best checkpoint's action chunks as a picture.
    result: dict[str, Any] = {
        "checkpoints": entries,
        "lowest": entries[best]["step"],
        "spread": spread,
        "windows": len(actions),
        "episodes": len(data.val.ends),
        "samples": args.samples,
        "sampler": f"{config.sampler.name}-{config.sampler.num_steps}",
        "weights": args.weights,
        "data": data.val.source,
        **provenance.provenance(),
    }
    folder = outputs.output_folder(args.run, args.out)
    (folder / "validation.json").write_text(json.dumps(result, indent=2) + "\n")
    steps = {"observed": config.horizon.obs, "executed": config.horizon.act}
    png = plots.actions_over_demonstrations(actions, mask, scores[best].chunks, **steps)
    picture = folder / "validation.png"
    picture.write_bytes(png)
    # 3. The table.
    print(imitation.table(entries, best, args.samples))
    print(
        f"{len(actions)} windows of {len(data.val.ends)} held-out episodes, {args.samples} chunks "
        f"each; the demonstrated actions themselves spread by {spread:.4g} around their mean"
    )
    print(f"lowest error: step {entries[best]['step']}  {picture}")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = arguments(argv)
    logging.basicConfig(level=logging.WARNING, format="dpjax: %(message)s", force=True)
    # A missing library is an error now, not after all checkpoints are scored.
    extras.require("matplotlib", extra="report")

    # 1. The run, and what it has not seen.
    config, spec = read_config(outputs.shipped_folder(args.run) or args.run)
    config = build.with_sampling(config, sampler=args.sampler, steps=args.steps)
    readers = checkpoints(args)
    data = held_out(config, spec, args)
    validated = batches(config, data, args.windows)

    # 2. Every checkpoint on the same batches, by one compiled program. (The policy's normalizer is
    # None, since each checkpoint's params hold their own.)
    policy = build.policy(config, None, spec)
    compiled = jax.jit(lambda *inputs: imitation.loss_and_samples(policy, *inputs, args.samples))
    with tqdm(total=len(readers) * len(validated), unit="batch", desc="validate") as bar:
        scores = [score(compiled, read(), step, validated, bar) for step, read in readers.items()]
    report(args, config, data, validated, scores)
    return 0


if __name__ == "__main__":
    flags.run(main)
