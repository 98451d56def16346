"""Push-T from state with the paper's transformer, sized for two CPU cores (1.2 M parameters).

    python -m dpjax.train --config configs/pusht_state_transformer_small.py --workdir runs/tf
"""

from configs import pusht_state_transformer


def get_config():
    """4 layers of 128 channels, batch 128: the minutes of pusht_state_small."""
    config = pusht_state_transformer.get_config()
    config.data.mirror = True
    config.denoiser.layers = 4
    config.denoiser.width = 128
    config.optim.lr = 1e-3
    config.train.steps = 15_000
    config.train.batch = 128
    config.train.steps_per_call = 10
    config.eval.every = 5_000
    config.val.every = 500
    config.save.every = 500
    return config
