"""Your own demonstrations, without a simulator.

python -m dpjax.convert robomimic mine.hdf5 data/mine
python -m dpjax.check --config custom --config.data.dir=data/mine
python -m dpjax.train --config custom --config.data.dir=data/mine --workdir runs/mine
python -m dpjax.validate --run runs/mine
"""

from ml_collections import ConfigDict

from dpjax.config import defaults


def get_config():
    """The U-Net of pusht_state_small, on all columns of the data set, with images uncropped.

    A tenth of the episodes is held out, and ranks the checkpoints. With cameras, give each a crop
    of 90 % of its image (config.cameras), and start with a ResNet of 18 layers and width 64.
    """
    config = defaults.get_config()
    config.task = "custom"
    config.data.columns = ConfigDict()  # empty for all, or {column: path inside an RLDS step}
    config.data.val_fraction = 0.1
    config.denoiser.widths = (64, 128, 256)
    config.denoiser.kernel_size = 3
    config.denoiser.time_features = 128
    config.sampler.num_steps = 10
    config.optim.lr = 1e-3
    config.train.steps = 20_000
    config.train.batch = 128
    config.train.steps_per_call = 10
    config.val.every = 1_000
    config.eval.every = 0  # there is no simulator to roll out in
    config.save.every = 1_000
    return config
