"""Push-T from a camera on the human demonstrations: scores, speed, learning curve.

    python -m experiments.pusht_image.run --zarr pusht_cchi_v7_replay.zarr

Trains configs/pusht_image_small.py (or goes on, or finds it done), scores it on the official
seeds with 10 DDPM steps, and writes results.json beside this.
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
    parser.add_argument("--data", default="data/pusht_image", help="where its RLDS copy lies")
    parser.add_argument("--run", default="runs/image_small", type=Path)
    parser.add_argument("--episodes", type=int, default=500, help="official seeds")
    given = parser.parse_args()

    collect.converted(given.zarr, given.data, "--keys", "img,state")
    collect.command(
        "dpjax.train", "--config", "configs/pusht_image_small.py", "--workdir", given.run,
        f"--config.data.dir={given.data}",
    )  # fmt: skip
    found = collect.evaluation(given.run, "ddpm", STEPS, given.episodes)
    rows = [collect.row(found, count) for count in sorted({50, given.episodes})]
    collect.write(HERE, collect.results(given.run, rows[-1], rows))
    return 0


if __name__ == "__main__":
    errors.run(main)
