"""Push-T from state with the transformer: the data, protocol and minutes of pusht_state.

    python -m experiments.pusht_transformer.run --zarr pusht_cchi_v7_replay.zarr

Trains configs/pusht_state_transformer_small.py and scores it on the official seeds with
DDPM-100 and with 10 DDPM steps, and writes results.json into this folder.
"""

from pathlib import Path

from dpjax.core import errors
from experiments import collect


def main() -> int:
    config = "configs/pusht_state_transformer_small.py"
    collect.state_experiment(Path(__file__).parent, config, "runs/transformer_small")
    return 0


if __name__ == "__main__":
    errors.run(main)
