"""Scores the checkpoints of a run on demonstrations that it was not trained on.

    python -m dpjax.validate --run runs/mine [--data data/other] [--samples 8]

Without a simulator, use it to choose a checkpoint, by the error of sampled action chunks. This
error measures how well the policy imitates the demonstrations, not how well it does the task.
Writes validation.json and validation.png into the run folder.
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

BATCH = 64  # windows per call of the compiled program


class Score(NamedTuple):
    """A checkpoint's numbers on the held-out windows.

    loss: the mean over all windows.
    chunks: [samples, W, Tp, Da], the sampled action chunks.
    errors: [samples, W], their root mean square errors, in data units.
    """

    step: int
    loss: float
    chunks: np.ndarray
    errors: np.ndarray

    def entry(self) -> dict[str, float]:
        """The entry of this checkpoint in validation.json."""
        return {
            "step": self.step,
            "loss": self.loss,
            "action_error": float(self.errors.mean()),
            "action_error_best": float(self.errors.min(0).mean()),  # each window's best sample
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
    """The data, with the episodes to validate on in `val`: the run's held-out ones, or --data.

    Raises UserError if the data has other sizes than the run, or has changed since the training,
    or if the run held nothing out.
    """
    # 1. Read the data. All of --data is used: nothing is held out, left out or mirrored.
    config = config.copy_and_resolve_references()
    if args.data:
        with config.unlocked():
            config.data.update(dir=args.data, val_fraction=0.0, weights="", max_episodes=0)
            config.data.mirror = False
    data = dataset.read(config)
    seen = dataset.spec(data)
    # 2. It must have the observations and actions that the policy was trained for.
    if (seen.observations, seen.action) != (spec.observations, spec.action):
        raise UserError(
            f"{data.train.source}: expected observations {spec.observations} and {spec.action} "
            f"actions, got {seen.observations} and {seen.action}: it is not what {args.run} "
            "was trained for."
        )
    if args.data:
        return data._replace(val=data.train)  # val_fraction=0 puts all of it into `train`
    # 3. The split depends on the data: with other data it may hold out what was trained on.
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

    All batches have one size, for one compiled program. Copies of its last window pad the last one.
    """
    windows = dataset.val_windows(config, data)
    ids = np.unique(np.linspace(0, len(windows) - 1, count).astype(int))
    size = min(BATCH, len(ids))  # there may be fewer than `count` windows, or than BATCH
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
    """{training step: a function that reads its params}, for each checkpoint of the run."""
    folder = outputs.shipped_folder(args.run)
    if folder is not None:  # a shipped policy has one checkpoint, without the raw weights
        if args.weights != "ema":
            raise UserError(
                f"--weights {args.weights}: {args.run} comes with its EMA weights only."
            )
        params, step = shipped.load_params(folder)
        return {step: lambda: params}
    steps = checkpoint.steps(args.run)
    if not steps:
        raise UserError(f"{args.run}: no checkpoint there yet.")
    # Functions, so that only one checkpoint at a time is in memory.
    read = lambda step: checkpoint.load_params(args.run, which=args.weights, step=step)[0]
    return {step: lambda step=step: read(step) for step in steps}  # each lambda with its step


def score(
    compiled: Callable,
    params: Params,
    step: int,
    batches: Sequence[tuple[Batch, int]],
    bar: tqdm,
) -> Score:
    """Scores one checkpoint on all batches. compiled: a jitted `imitation.loss_and_samples`."""
    params = jax.device_put(params)  # once, not in every call
    total = 0.0
    weight = 0.0
    chunks = []
    for i, (batch, count) in enumerate(batches):
        # The same noise for every checkpoint, so that checkpoints do not differ by luck.
        rng = jax.random.fold_in(jax.random.key(0), i)
        (loss, sums), sampled = jax.device_get(compiled(params, rng, batch))
        # A padded batch counts by its share of real windows.
        share = count / sampled.shape[1]
        total = total + loss * share
        weight = weight + sums["weight"] * share
        chunks.append(sampled[:, :count])  # without the padding
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
    # 1. The checkpoint with the lowest error. `spread` is the error of a poor policy, to compare.
    actions, mask = demonstrated(batches)
    entries = [score.entry() for score in scores]
    best = min(range(len(entries)), key=lambda i: entries[i]["action_error"])
    spread = imitation.spread(actions, mask)
    # 2. The files: numbers, and a picture of the best checkpoint's action chunks.
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
    # 3. The table, and below it what the numbers are of.
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
    # A missing library should be an error now, not after all checkpoints are scored.
    extras.require("matplotlib", extra="report")

    # 1. The run, and windows that it was not trained on.
    config, spec = read_config(outputs.shipped_folder(args.run) or args.run)
    config = build.with_sampling(config, sampler=args.sampler, steps=args.steps)
    readers = checkpoints(args)
    data = held_out(config, spec, args)
    validated = batches(config, data, args.windows)

    # 2. Score every checkpoint on the same batches, with one compiled program. The policy is built
    # without a normalizer (None), since the params of each checkpoint hold theirs.
    policy = build.policy(config, None, spec)
    compiled = jax.jit(lambda *inputs: imitation.loss_and_samples(policy, *inputs, args.samples))
    with tqdm(total=len(readers) * len(validated), unit="batch", desc="validate") as bar:
        scores = [score(compiled, read(), step, validated, bar) for step, read in readers.items()]
    report(args, config, data, validated, scores)
    return 0


if __name__ == "__main__":
    flags.run(main)
