"""Your own demonstrations, without a simulator.

python -m dpjax.convert robomimic mine.hdf5 data/mine
python -m dpjax.check --config custom --config.data.dir=data/mine
python -m dpjax.train --config custom --config.data.dir=data/mine --workdir runs/mine
python -m dpjax.validate --run runs/mine
"""

from ml_collections import ConfigDict

from dpjax.config import defaults


def get_config():
    """The U-Net of pusht_state_small, on all columns of the data set.

    For a data set with cameras, start with the default ResNet (18 layers, width 64), and give each
    camera a crop of 90 % of its image (config.cameras). Without one, images are not cropped.
    """
    config = defaults.get_config()
    # The data. Without rollouts, the error on held-out episodes ranks the checkpoints.
    config.task = "custom"
    config.data.columns = ConfigDict()  # all; or {column: path inside an RLDS step}
    config.data.val_fraction = 0.1
    # The policy.
    config.denoiser.widths = (64, 128, 256)
    config.denoiser.kernel_size = 3
    config.denoiser.time_features = 128
    config.sampler.num_steps = 10
    # The training.
    config.optim.lr = 1e-3
    config.train.steps = 20_000
    config.train.batch = 128
    config.train.steps_per_call = 10
    config.val.every = 1_000
    config.eval.every = 0  # there is no simulator
    config.save.every = 1_000
    return config
