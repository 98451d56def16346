"""Push-T from state with the paper's U-Net (65.8 M parameters; Chi et al. 2023, table 9).

python -m dpjax.convert zarr pusht_cchi_v7_replay.zarr data/pusht_human
python -m dpjax.train --config pusht_state --workdir runs/pusht_state
"""

from dpjax.config import defaults


def get_config():
    """The paper's sizes, for an accelerator: two CPU cores do about one step per second."""
    config = defaults.get_config()
    config.data.dir = "data/pusht_human"  # 206 episodes, 25,650 steps
    config.train.steps_per_call = 2  # about 2 s per call on two cores
    return config
