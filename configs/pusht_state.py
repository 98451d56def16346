"""Push-T from state, the paper's U-Net (65.8 M parameters), table 9 of Chi et al. 2023.

python -m dpjax.convert zarr pusht_cchi_v7_replay.zarr data/pusht_human
python -m dpjax.train --config pusht_state --workdir runs/pusht_state
"""

from dpjax.config import defaults


def get_config():
    """The paper's sizes; for an accelerator (about one step a second on two cores)."""
    config = defaults.get_config()
    config.data.dir = "data/pusht_human"  # 206 episodes, 25,650 steps
    config.train.steps_per_call = 2
    return config
