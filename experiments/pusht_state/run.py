"""Push-T from state on the human demonstrations: scores, speed, learning curve.

    python -m experiments.pusht_state.run --zarr pusht_cchi_v7_replay.zarr

Trains configs/pusht_state_small.py (or goes on, or finds it done), scores it on the 500
official seeds with DDPM-100 and with 10 DDPM steps, and writes results.json beside this.
"""

import argparse
from pathlib import Path

from dpjax import errors
from experiments import collect

HERE = Path(__file__).parent
EPISODES = 500  # LeRobot's protocol; the first 50 are the paper's


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.pusht_state.run")
    parser.add_argument("--zarr", help="the paper's Push-T zarr; not needed once converted")
    parser.add_argument("--data", default="data/pusht_human", help="where its RLDS copy lies")
    parser.add_argument("--run", default="runs/pusht_small", type=Path)
    parser.add_argument("--checkpoint", type=int, help="score this step, not the last")
    parser.add_argument(
        "--slow-episodes", type=int, default=EPISODES, help="of DDPM-100, ten times as slow"
    )
    given = parser.parse_args()

    collect.converted(given.zarr, given.data)
    collect.command(
        "dpjax.train", "--config", "configs/pusht_state_small.py", "--workdir", given.run,
        f"--config.data.dir={given.data}",
    )  # fmt: skip
    wanted = {10: EPISODES, 100: given.slow_episodes}
    rows = []
    for steps, episodes in wanted.items():
        found = collect.evaluation(
            given.run, "ddpm", steps, episodes, checkpoint=given.checkpoint
        )
        rows += [collect.row(found, count) for count in sorted({50, episodes})]
    collect.write(HERE, collect.results(given.run, rows[1], rows))  # 10 steps, 500 seeds
    return 0


if __name__ == "__main__":
    errors.run(main)
