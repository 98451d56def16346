"""MetaWorld from state and ten scripted demonstrations, with one config for all 50 tasks.

    python -m dpjax.demos --task metaworld/push --episodes 10 --keep success \\
        --out data/metaworld/push
    python -m dpjax.train --config metaworld --config.task=metaworld/push \\
        --config.data.dir=data/metaworld/push --workdir runs/metaworld/push
"""

from dpjax.config import defaults


def get_config():
    """A small U-Net, which trains in a few minutes per task on two CPU cores."""
    config = defaults.get_config()
    # The data.
    config.task = "metaworld/push"
    config.data.dir = "data/metaworld/push"  # 10 episodes, about 600 steps
    config.data.val_fraction = 0.0  # with ten episodes none is held out
    # Positions are in m, orientations are quaternions. A dim with a smaller range than this is not
    # scaled to [-1, 1]. Otherwise a slight tilt that the demonstrations lack would be a value far
    # outside of [-1, 1].
    config.normalize.min_range = 0.01
    # The policy. At 80 Hz, 4 executed steps give a new observation every 50 ms.
    config.horizon = dict(obs=2, predict=8, act=4)
    config.denoiser.widths = (32, 64)
    config.denoiser.kernel_size = 3
    config.denoiser.time_features = 64
    config.predict = "sample"  # like DP3 (Ze et al. 2024)
    config.sampler.name = "ddim"
    config.sampler.num_steps = 10
    # The training. There is nothing to validate on, and rollouts come afterwards (dpjax.evaluate).
    config.optim.lr = 1e-3
    config.optim.warmup = 200
    config.train.steps = 2_000
    config.train.batch = 64
    config.train.steps_per_call = 20
    config.val.every = 0
    config.eval.every = 0
    config.save.every = 500
    return config
