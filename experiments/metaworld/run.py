"""Six MetaWorld tasks from ten scripted demonstrations each, one configuration for all.

    python -m experiments.metaworld.run [--tasks push,hammer]

For each task: makes the demonstrations, trains configs/metaworld.py on them, scores the
last EMA weights on the official seeds. What is done already is not done again. Writes
results.json beside this, and prints the table of the README.
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
# Ze et al. 2024, success of (Diffusion Policy from images, DP3 from point clouds).
PUBLISHED = {"assembly": (0.15, 0.99), "disassemble": (0.43, 0.69), "stick-push": (0.63, 0.97)}


def demonstrate(task: str, data: Path) -> dict:
    """The data set, made where it is not there yet; how many tries it took."""
    if not data.exists():
        collect.command(
            "dpjax.demos", "--task", f"metaworld/{task}", "--episodes", DEMONSTRATIONS,
            "--keep", "success", "--out", data,
        )  # fmt: skip
    info = json.loads(next(data.glob("*/dataset_info.json")).read_text())
    about = json.loads(info["description"].split("dpjax.demos: ", 1)[1])
    return {key: about[key] for key in ("tried", "failed", "broken", "seeds")}


def train(task: str, data: Path, run: Path) -> float:
    """Trains, or goes on, or finds it done; returns the minutes of training."""
    collect.command(
        "dpjax.train", "--config", CONFIG, "--workdir", run,
        f"--config.task=metaworld/{task}", f"--config.data.dir={data}",
    )  # fmt: skip
    return max(entry.get("seconds", 0.0) for entry in metrics.read(run / "metrics.jsonl")) / 60


def measure(task: str, data: Path, run: Path) -> dict:
    """One task from nothing to its row in results.json."""
    demonstrations = demonstrate(task, data)
    minutes = train(task, data, run)
    config, _ = config_file.read_config(run)
    found = collect.evaluation(run, config.sampler.name, config.sampler.num_steps, EPISODES)
    first = tasks.get(config.task).simulator.official_seeds
    if found["by_seed"][0]["seed"] != first:
        raise errors.UserError(
            f"{run} holds an evaluation of seeds {found['seeds']}, not from {first}: remove it."
        )
    return {
        "success": found["success"],
        "interval": found["success_interval"],
        "episodes": found["episodes"],
        "broken": found["broken"],
        "mean_steps": found["mean_steps"],
        "seeds": found["seeds"],
        "sampler": found["sampler"],
        "train_steps": found["checkpoint"],
        "train_minutes": minutes,
        "evaluation_seconds": found["evaluation_seconds"],
        "demonstrations": demonstrations,
        "commit": found["commit"],
    }


def results(rows: dict[str, dict]) -> dict:
    """What results.json holds: a row a task, their mean, the machine.

    mean_interval: Wilson's over all episodes together, as if they were of one task.
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
    parser = argparse.ArgumentParser(prog="python -m experiments.metaworld.run")
    parser.add_argument("--tasks", default=",".join(TASKS), help="names, with commas")
    parser.add_argument("--data", default="data/metaworld", type=Path)
    parser.add_argument("--runs", default="runs/metaworld", type=Path)
    parser.add_argument("--out", default=HERE, type=Path, help="folder of results.json")
    given = parser.parse_args()
    names = given.tasks.split(",")
    rows = {task: measure(task, given.data / task, given.runs / task) for task in names}
    result = results(rows)
    path = given.out / "results.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(table(result))
    print(f"{path}: mean success {result['mean_success']:.3f}")
    return 0


if __name__ == "__main__":
    errors.run(main)
