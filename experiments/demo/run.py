"""What `make demo` reaches: trains configs/pusht_demo.py and scores it, as the demo does.

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
    parser = argparse.ArgumentParser(prog="python -m experiments.demo.run")
    parser.add_argument("--run", default="runs/demo", type=Path)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--wall-seconds", type=float, help="of make demo, as its last line says")
    given = parser.parse_args()
    collect.run_module("dpjax.train", "--config", "configs/pusht_demo.py", "--workdir", given.run)
    config, _ = config_file.read_config(given.run)
    sampler = (config.sampler.name, config.sampler.num_steps)
    found = collect.evaluation(given.run, *sampler, given.episodes)
    rows = [collect.row(found, given.episodes)]
    result = collect.results(given.run, rows[0], rows)
    result["wall_seconds_clone_to_report"] = given.wall_seconds
    collect.write(HERE, json.loads(json.dumps(result)))
    return 0


if __name__ == "__main__":
    errors.run(main)
