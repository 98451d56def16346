"""The tiny run with the paper's transformer."""

from support import tiny_config


def get_config():
    """Two steps of one layer, with dropout."""
    config = tiny_config.get_config()
    config.denoiser = dict(
        name="transformer",
        layers=1,
        heads=2,
        width=8,
        cond_layers=0,
        causal=True,
        encoder_only=False,
        drop=0.1,
        drop_tokens=0.1,
    )
    config.optim.decay = "matrices"
    config.optim.warmup = 1
    config.train.steps = 2
    config.val.every = 2
    return config
