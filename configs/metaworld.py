"""MetaWorld from state, ten scripted demonstrations: one configuration for all 50 tasks.

    python -m dpjax.demos --task metaworld/push --episodes 10 --keep success \\
        --out data/metaworld/push
    python -m dpjax.train --config metaworld --config.task=metaworld/push \\
        --config.data.dir=data/metaworld/push --workdir runs/metaworld/push
"""

from dpjax.config import defaults


def get_config():
    """A small U-Net: a few minutes of two CPU cores per task."""
    config = defaults.get_config()
    config.task = "metaworld/push"
    config.data.dir = "data/metaworld/push"  # 10 episodes, about 600 steps
    config.data.val_fraction = 0.0  # ten are too few to spare one
    # In m, and of quaternions. A dim that hardly moves in ten demonstrations is not scaled to
    # [-1, 1]: otherwise an object that is tilted once would be far outside of the training data.
    config.normalize.min_range = 0.01
    config.horizon = dict(obs=2, predict=8, act=4)  # at 80 Hz: a new observation after 50 ms
    config.denoiser.widths = (32, 64)
    config.denoiser.kernel_size = 3
    config.denoiser.time_features = 64
    config.predict = "sample"  # as DP3 (Ze et al. 2024)
    config.sampler.name = "ddim"
    config.sampler.num_steps = 10
    config.optim.lr = 1e-3
    config.optim.warmup = 200
    config.train.steps = 2_000
    config.train.batch = 64
    config.train.steps_per_call = 20
    config.val.every = 0
    config.eval.every = 0
    config.save.every = 500
    return config
