"""Push-T from a camera on the human demonstrations: scores, speed, learning curve.

    python -m experiments.pusht_image.run --zarr pusht_cchi_v7_replay.zarr

Trains configs/pusht_image_small.py (or continues, or finds it done), scores it on the official
seeds with 10 DDPM steps, and writes results.json into this folder.
"""

import argparse
from pathlib import Path

from dpjax.core import errors
from experiments import collect

HERE = Path(__file__).parent
STEPS = 10  # of DDPM


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.pusht_image.run")
    parser.add_argument("--zarr", help="the paper's Push-T zarr; not needed once converted")
    parser.add_argument("--data", default="data/pusht_image", help="folder of its RLDS copy")
    parser.add_argument("--run", default="runs/image_small", type=Path)
    parser.add_argument("--episodes", type=int, default=500, help="official seeds")
    args = parser.parse_args()

    collect.convert_once(args.zarr, args.data, "--keys", "img,state")
    config = "configs/pusht_image_small.py"
    data = f"--config.data.dir={args.data}"
    collect.run_module("dpjax.train", "--config", config, "--workdir", args.run, data)
    result = collect.evaluation(args.run, "ddpm", STEPS, args.episodes)
    rows = [collect.row(result, count) for count in sorted({50, args.episodes})]
    collect.write(HERE, collect.results(args.run, rows[-1], rows))
    return 0


if __name__ == "__main__":
    errors.run(main)
