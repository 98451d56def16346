"""From a run and its evaluations to results.json and a learning curve.

Shared by the experiments that train one policy and score it; they differ in data, config
and rows only.
"""

import argparse
import json
from pathlib import Path
import subprocess
import sys

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from dpjax import evaluate
from dpjax.core.errors import UserError
from dpjax.evaluation import provenance, scores
from dpjax.training import metrics

EPISODES = 500  # LeRobot's protocol; the first 50 are the paper's
NUMBERS = ("score", "score_interval", "success", "success_interval", "episodes", "broken")


def command(*arguments) -> None:
    """Runs `python -m <arguments>` and stops where it fails."""
    print("$ python -m", *arguments, flush=True)
    done = subprocess.run([sys.executable, "-m", *map(str, arguments)], check=False)
    if done.returncode:
        raise UserError(f"python -m {arguments[0]} ended with code {done.returncode}.")


def converted(zarr: str | None, data: str, *options) -> None:
    """The paper's zarr as RLDS in `data`, made where it is not there yet."""
    if Path(data).exists():
        return
    if not zarr:
        raise UserError(f"{data} is not there: give --zarr to make it.")
    command("dpjax.convert", "zarr", zarr, data, *options)


def evaluation(
    run: Path, sampler: str, steps: int, episodes: int, *, warm_start=0.0, checkpoint=None
) -> dict:
    """The evaluation of that name, made where it is not there yet."""
    label = evaluate.sampler_label(sampler, steps, warm_start)
    path = run / f"evaluation-{label}-ema-{episodes}.json"
    if not path.exists():
        pick = [] if checkpoint is None else ["--checkpoint", checkpoint]
        command(
            "dpjax.evaluate", "--run", run, "--episodes", episodes, "--num-envs", 100,
            "--sampler", sampler, "--steps", steps, "--warm-start", warm_start, *pick,
        )  # fmt: skip
    return json.loads(path.read_text())


def state_experiment(folder: Path, config: str, run: str) -> None:
    """Push-T from state on the human demonstrations: trains, scores, writes results.json."""
    parser = argparse.ArgumentParser(prog=f"python -m experiments.{folder.name}.run")
    parser.add_argument("--zarr", help="the paper's Push-T zarr; not needed once converted")
    parser.add_argument("--data", default="data/pusht_human", help="where its RLDS copy lies")
    parser.add_argument("--run", default=run, type=Path)
    parser.add_argument("--checkpoint", type=int, help="score this step, not the last")
    parser.add_argument(
        "--slow-episodes", type=int, default=EPISODES, help="of DDPM-100, ten times as slow"
    )
    given = parser.parse_args()

    converted(given.zarr, given.data)
    command(
        "dpjax.train", "--config", config, "--workdir", given.run,
        f"--config.data.dir={given.data}",
    )  # fmt: skip
    rows = []
    for steps, episodes in {10: EPISODES, 100: given.slow_episodes}.items():
        found = evaluation(given.run, "ddpm", steps, episodes, checkpoint=given.checkpoint)
        rows += [row(found, count) for count in sorted({50, episodes})]
    write(folder, results(given.run, rows[1], rows))  # 10 steps, 500 seeds


def row(result: dict, episodes: int) -> dict:
    """Both metrics over the first `episodes` seeds of an evaluation."""
    first = result["by_seed"][:episodes]
    valid = [episode for episode in first if episode["broken"] is None]
    mean = [episode["score"] for episode in valid]
    successes = sum(episode["success"] for episode in valid)
    return {
        "sampler": result["sampler"],
        "seeds": f"{first[0]['seed']}-{first[-1]['seed']}",
        "score": sum(mean) / len(valid),
        "score_interval": scores.bootstrap(mean),
        "success": successes / len(valid),
        "success_interval": scores.wilson(successes, len(valid)),
        "episodes": len(first),
        "broken": len(first) - len(valid),
        "checkpoint": result["checkpoint"],
        "evaluation_seconds_of_all": result["evaluation_seconds"],
        "commit": result["commit"],
    }


def results(run: Path, headline: dict, rows: list[dict]) -> dict:
    """What results.json holds: the headline's numbers, then rows, speed and machine."""
    entries = metrics.read(run / "metrics.jsonl")
    logged = [entry for entry in entries if "loss" in entry]
    at = [entry for entry in logged if entry["step"] <= headline["checkpoint"]][-1]
    speeds = sorted(entry["steps_per_second"] for entry in logged[1:])
    waits = [entry["input_wait"] for entry in logged[1:] if "input_wait" in entry]
    curve = [
        {"minutes": entry["seconds"] / 60, **{key: entry[key] for key in ("step", *NUMBERS)}}
        for entry in entries
        if "score" in entry
    ]
    return {
        **{key: headline[key] for key in NUMBERS},
        "train_minutes": at["seconds"] / 60,
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
    """Score and success on the selection seeds against minutes of training."""
    figure = Figure(figsize=(7, 3.4), layout="constrained")
    axes = figure.add_subplot()
    curve = result["learning_curve_selection_seeds"]
    minutes = [point["minutes"] for point in curve]
    for key, color in (("score", "#2563eb"), ("success", "#e8590c")):
        axes.plot(minutes, [point[key] for point in curve], "o-", color=color, label=key)
        low, high = zip(*[point[f"{key}_interval"] for point in curve])
        axes.fill_between(minutes, low, high, color=color, alpha=0.15, lw=0)
    axes.set(xlabel="minutes of training", ylim=(0, 1), title="selection seeds, 95 % intervals")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    FigureCanvasAgg(figure).print_png(str(path))


def write(folder: Path, result: dict) -> None:
    """results.json, and learning_curve.png where the run was scored on its way."""
    (folder / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    if result["learning_curve_selection_seeds"]:
        plot(folder / "learning_curve.png", result)
    print(f"{folder / 'results.json'}: {scores.line({**result, 'out_of_bounds': 0})}")
