"""Push-T from state, sized for two CPU cores (3.1 M parameters).

python -m dpjax.convert zarr pusht_cchi_v7_replay.zarr data/pusht_human
python -m dpjax.train --config pusht_state_small --workdir runs/pusht_small
"""

from dpjax.config import defaults


def get_config():
    """A U-Net 64-128-256 with kernel size 3, and batches of 128.

    It trains in 40 minutes on two cores with AVX-512, and in 80 minutes on two slower cores. Half
    the steps give nearly the same score.
    """
    config = defaults.get_config()
    # The data.
    config.data.dir = "data/pusht_human"  # 206 episodes, 25,650 steps
    config.data.mirror = True
    # The network, smaller than the paper's (256-512-1024, kernel size 5).
    config.denoiser.widths = (64, 128, 256)
    config.denoiser.kernel_size = 3
    config.denoiser.time_features = 128
    # The training. A call of 10 steps takes about a second.
    config.optim.lr = 1e-3
    config.train.steps = 20_000
    config.train.batch = 128
    config.train.steps_per_call = 10
    config.eval.every = 5_000
    config.val.every = 500
    config.save.every = 500
    return config
