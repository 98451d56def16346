"""Push-T from state on the human demonstrations: scores, speed, learning curve.

    python -m experiments.pusht_state.run --zarr pusht_cchi_v7_replay.zarr

Trains configs/pusht_state_small.py (or continues, or finds it done), scores it on the 500
official seeds with DDPM-100 and with 10 DDPM steps, and writes results.json into this folder.
"""

from pathlib import Path

from dpjax.core import errors
from experiments import collect


def main() -> int:
    config = "configs/pusht_state_small.py"
    collect.state_experiment(Path(__file__).parent, config, "runs/pusht_small")
    return 0


if __name__ == "__main__":
    errors.run(main)
