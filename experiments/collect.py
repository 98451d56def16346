"""From a run and its evaluations to results.json and a learning curve.

Shared by the experiments that train one policy and score it. They differ only in data, config and
the rows of their table.
"""

import argparse
import json
from pathlib import Path
import subprocess
import sys

from dpjax import evaluate
from dpjax.core.errors import UserError
from dpjax.evaluation import plots, provenance, scores
from dpjax.training import metrics

EPISODES = 500  # LeRobot's protocol; the first 50 seeds are the paper's
NUMBERS = ("score", "score_interval", "success", "success_interval", "episodes", "broken")


def run_module(*arguments) -> None:
    """Runs `python -m <arguments>` and raises if it fails."""
    print("$ python -m", *arguments, flush=True)
    process = subprocess.run([sys.executable, "-m", *map(str, arguments)], check=False)
    if process.returncode:
        raise UserError(f"python -m {arguments[0]} ended with code {process.returncode}.")


def convert_once(zarr: str | None, data: str, *options) -> None:
    """Converts the paper's zarr to RLDS in `data`, unless that folder exists already."""
    if Path(data).exists():
        return
    if not zarr:
        raise UserError(f"{data} does not exist: give --zarr to make it.")
    run_module("dpjax.convert", "zarr", zarr, data, *options)


def evaluation(
    run: Path, sampler: str, steps: int, episodes: int, *, warm_start=0.0, checkpoint=None
) -> dict:
    """An evaluation of the run on the official seeds, made unless the run folder has it.

    checkpoint: the training step to evaluate; None for the last one.
    """
    label = evaluate.sampler_label(sampler, steps, warm_start)
    path = run / f"evaluation-{label}-ema-{episodes}.json"
    if not path.exists():
        options = {
            "--run": run,
            "--episodes": episodes,
            "--num-envs": 100,
            "--sampler": sampler,
            "--steps": steps,
            "--warm-start": warm_start,
        }
        if checkpoint is not None:
            options["--checkpoint"] = checkpoint
        run_module("dpjax.evaluate", *(word for option in options.items() for word in option))
    return json.loads(path.read_text())


def state_experiment(folder: Path, config: str, run: str) -> None:
    """Push-T from state on the human demonstrations: trains, scores, writes results.json.

    folder: the experiment's. config: the config file. run: the default run folder.
    """
    parser = argparse.ArgumentParser(prog=f"python -m experiments.{folder.name}.run")
    parser.add_argument("--zarr", help="the paper's Push-T zarr; not needed once converted")
    parser.add_argument("--data", default="data/pusht_human", help="folder of its RLDS copy")
    parser.add_argument("--run", default=run, type=Path)
    parser.add_argument("--checkpoint", type=int, help="score this step instead of the last one")
    parser.add_argument(
        "--slow-episodes",
        type=int,
        default=EPISODES,
        help="episodes with DDPM-100, which takes ten times as long",
    )
    args = parser.parse_args()

    # Each command continues where an earlier start stopped, or finds its work done.
    convert_once(args.zarr, args.data)
    run_module(
        "dpjax.train", "--config", config, "--workdir", args.run, f"--config.data.dir={args.data}"
    )
    rows = []
    for steps, episodes in {10: EPISODES, 100: args.slow_episodes}.items():
        result = evaluation(args.run, "ddpm", steps, episodes, checkpoint=args.checkpoint)
        rows += [row(result, count) for count in sorted({50, episodes})]
    headline = rows[1]  # 10 DDPM steps, 500 seeds
    write(folder, results(args.run, headline, rows))


def row(result: dict, episodes: int) -> dict:
    """One row of the table: both metrics over the first `episodes` seeds of an evaluation."""
    first = result["by_seed"][:episodes]
    # Episodes that the simulator broke off are counted, and do not enter the metrics.
    valid = [episode for episode in first if episode["broken"] is None]
    episode_scores = [episode["score"] for episode in valid]
    successes = sum(episode["success"] for episode in valid)
    return {
        "sampler": result["sampler"],
        "seeds": f"{first[0]['seed']}-{first[-1]['seed']}",
        "score": sum(episode_scores) / len(valid),
        "score_interval": scores.bootstrap(episode_scores),
        "success": successes / len(valid),
        "success_interval": scores.wilson(successes, len(valid)),
        "episodes": len(first),
        "broken": len(first) - len(valid),
        "checkpoint": result["checkpoint"],
        "evaluation_seconds_of_all": result["evaluation_seconds"],
        "commit": result["commit"],
    }


def results(run: Path, headline: dict, rows: list[dict]) -> dict:
    """The content of results.json: the headline's numbers, all rows, speed and machine."""
    entries = metrics.read(run / "metrics.jsonl")
    logged = [entry for entry in entries if "loss" in entry]
    scored = [entry for entry in logged if entry["step"] <= headline["checkpoint"]][-1]
    # The first entry includes compilation.
    speeds = sorted(entry["steps_per_second"] for entry in logged[1:])
    waits = [entry["input_wait"] for entry in logged[1:] if "input_wait" in entry]
    curve = [
        {"minutes": entry["seconds"] / 60, **{key: entry[key] for key in ("step", *NUMBERS)}}
        for entry in entries
        if "score" in entry
    ]
    return {
        **{key: headline[key] for key in NUMBERS},
        "train_minutes": scored["seconds"] / 60,
        "steps": headline["checkpoint"],
        "steps_per_second": speeds[len(speeds) // 2],
        "input_wait": sum(waits) / len(waits) if waits else None,  # share of the time
        "rows": rows,
        "learning_curve_selection_seeds": curve,
        **provenance.machine(),
        "versions": provenance.versions(),
        "commit": headline["commit"],
    }


def plot(path: Path, result: dict) -> None:
    """Score and success on the selection seeds over the minutes of training."""
    figure, axes = plots.canvas(7, 3.4)
    curve = result["learning_curve_selection_seeds"]
    minutes = [point["minutes"] for point in curve]
    for key, color in (("score", "#2563eb"), ("success", "#e8590c")):
        axes.plot(minutes, [point[key] for point in curve], "o-", color=color, label=key)
        low, high = zip(*[point[f"{key}_interval"] for point in curve])
        axes.fill_between(minutes, low, high, color=color, alpha=0.15, lw=0)
    axes.set(xlabel="minutes of training", ylim=(0, 1), title="selection seeds, 95 % intervals")
    axes.legend(frameon=False)
    path.write_bytes(plots.png(figure))


def write(folder: Path, result: dict) -> None:
    """Writes results.json, and learning_curve.png if the run was scored while it trained."""
    (folder / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    if result["learning_curve_selection_seeds"]:
        plot(folder / "learning_curve.png", result)
    print(f"{folder / 'results.json'}: {scores.line({**result, 'out_of_bounds': 0})}")
