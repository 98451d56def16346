"""A run of seconds: 60 steps of a U-Net of two levels."""

from dpjax.config import defaults


def get_config():
    """base.py with small numbers; no evaluation."""
    config = defaults.get_config()
    config.horizon = dict(obs=2, predict=8, act=4)
    config.data.val_fraction = 0.2
    # Two channels a group: with one, a bias has no gradient but noise, which Adam blows up.
    config.denoiser.widths = (16, 32)
    config.denoiser.kernel_size = 3
    config.denoiser.time_features = 16
    config.schedule.num_levels = 20
    config.sampler.num_steps = 4
    config.optim.lr = 2e-3
    config.optim.warmup = 2
    config.train.update(steps=60, batch=16, steps_per_call=2)
    config.log.every = 2
    config.val = dict(every=30, windows=6, samples=3, num_steps=2)
    config.eval = dict(every=0, episodes=2, num_envs=2, num_steps=2)
    config.save = dict(every=4, keep_best=2)
    return config
