"""What `make demo` reaches: trains configs/pusht_demo.py and scores it, as the demo does.

A run folder that `make demo` has left is not trained or scored again.

python -m experiments.demo.run [--run runs/demo]
"""

import argparse
import json
from pathlib import Path

from dpjax.core import errors
from dpjax.runs import config_file
from experiments import collect

HERE = Path(__file__).parent


def main() -> int:
    """Runs the experiment and writes results.json; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments.demo.run")
    parser.add_argument("--run", default="runs/demo", type=Path)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--wall-seconds", type=float, help="what the last line of make demo says")
    args = parser.parse_args()
    collect.run_module("dpjax.train", "--config", "configs/pusht_demo.py", "--workdir", args.run)
    config, _ = config_file.read_config(args.run)
    sampler = (config.sampler.name, config.sampler.num_steps)
    evaluation = collect.evaluation(args.run, *sampler, args.episodes)
    rows = [collect.row(evaluation, args.episodes)]
    result = collect.results(args.run, rows[0], rows)
    result["wall_seconds_clone_to_report"] = args.wall_seconds
    collect.write(HERE, json.loads(json.dumps(result)))
    return 0


if __name__ == "__main__":
    errors.run(main)
