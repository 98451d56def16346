"""Six MetaWorld tasks from ten scripted demonstrations each, one configuration for all.

    python -m experiments.metaworld.run [--tasks push,hammer]

For each task it makes the demonstrations, trains configs/metaworld.py on them and scores the last
averaged weights on the official seeds. What an earlier start has done is not done again. Writes
results.json beside this file and prints the README's table.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from dpjax import tasks
from dpjax.core import errors
from dpjax.evaluation import provenance, scores
from dpjax.runs import config_file
from dpjax.training import metrics
from experiments import collect

HERE = Path(__file__).parent
CONFIG = "configs/metaworld.py"
TASKS = ("push", "pick-place", "door-open", "hammer", "disassemble", "stick-push")
DEMONSTRATIONS = 10
EPISODES = 20
# Success published by Ze et al. 2024: (Diffusion Policy from images, DP3 from point clouds).
PUBLISHED = {"assembly": (0.15, 0.99), "disassemble": (0.43, 0.69), "stick-push": (0.63, 0.97)}


def demonstrate(task: str, data: Path) -> dict:
    """Makes the data set if it does not exist; returns how many episodes that took."""
    if not data.exists():
        collect.run_module(
            "dpjax.demos", "--task", f"metaworld/{task}", "--episodes", DEMONSTRATIONS,
            "--keep", "success", "--out", data,
        )  # fmt: skip
    info = json.loads(next(data.glob("*/dataset_info.json")).read_text())
    # dpjax.demos writes what it tried into the description, as JSON.
    about = json.loads(info["description"].split("dpjax.demos: ", 1)[1])
    return {key: about[key] for key in ("tried", "failed", "broken", "seeds")}


def train(task: str, data: Path, run: Path) -> float:
    """Trains, or goes on with an earlier start; returns the minutes of training."""
    collect.run_module(
        "dpjax.train", "--config", CONFIG, "--workdir", run,
        f"--config.task=metaworld/{task}", f"--config.data.dir={data}",
    )  # fmt: skip
    return max(entry.get("seconds", 0.0) for entry in metrics.read(run / "metrics.jsonl")) / 60


def measure(task: str, data: Path, run: Path) -> dict:
    """One task, from its demonstrations to its entry in results.json."""
    demonstrations = demonstrate(task, data)
    minutes = train(task, data, run)
    config, _ = config_file.read_config(run)
    evaluation = collect.evaluation(run, config.sampler.name, config.sampler.num_steps, EPISODES)
    first = tasks.require_simulator(tasks.get(config.task)).official_seeds
    if evaluation["by_seed"][0]["seed"] != first:
        raise errors.UserError(
            f"{run} holds an evaluation of seeds {evaluation['seeds']}, not from {first}: "
            "remove it."
        )
    return {
        "success": evaluation["success"],
        "interval": evaluation["success_interval"],
        "episodes": evaluation["episodes"],
        "broken": evaluation["broken"],
        "mean_steps": evaluation["mean_steps"],
        "seeds": evaluation["seeds"],
        "sampler": evaluation["sampler"],
        "train_steps": evaluation["checkpoint"],
        "train_minutes": minutes,
        "evaluation_seconds": evaluation["evaluation_seconds"],
        "demonstrations": demonstrations,
        "commit": evaluation["commit"],
    }


def results(rows: dict[str, dict]) -> dict:
    """What results.json holds: the tasks, their mean, and what it was measured with.

    The mean's interval is Wilson's over all episodes together, as if they were of one task.
    """
    counted = sum(row["episodes"] - row["broken"] for row in rows.values())
    successes = round(sum(r["success"] * (r["episodes"] - r["broken"]) for r in rows.values()))
    return {
        "tasks": rows,
        "mean_success": float(np.mean([row["success"] for row in rows.values()])),
        "mean_interval": scores.wilson(successes, counted),
        "demonstrations_a_task": DEMONSTRATIONS,
        "train_minutes": sum(row["train_minutes"] for row in rows.values()),
        **provenance.provenance(),
    }


def table(result: dict) -> str:
    """The README's table: each task beside the published numbers."""
    lines = [
        "| task | success, 20 episodes | training | DP, images | DP3, point clouds |",
        "|---|---|---|---|---|",
    ]
    for task, row in result["tasks"].items():
        published = [f"{number:.2f}" for number in PUBLISHED.get(task, ())] or ["", ""]
        success = scores.with_interval(row["success"], row["interval"])
        minutes = f"{row['train_minutes']:.1f} min"
        lines.append(f"| {' | '.join([task, success, minutes, *published])} |")
    mean = scores.with_interval(result["mean_success"], result["mean_interval"])
    lines.append(f"| mean | {mean} | {result['train_minutes']:.1f} min together | | |")
    return "\n".join(lines)


def main() -> int:
    """Runs the experiment; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.metaworld.run")
    parser.add_argument("--tasks", default=",".join(TASKS), help="names, separated by commas")
    parser.add_argument("--data", default="data/metaworld", type=Path)
    parser.add_argument("--runs", default="runs/metaworld", type=Path)
    parser.add_argument("--out", default=HERE, type=Path, help="folder of results.json")
    args = parser.parse_args()
    names = args.tasks.split(",")
    rows = {task: measure(task, args.data / task, args.runs / task) for task in names}
    result = results(rows)
    path = args.out / "results.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))
    print(f"{path}: mean success {result['mean_success']:.3f}")
    return 0


if __name__ == "__main__":
    errors.run(main)
