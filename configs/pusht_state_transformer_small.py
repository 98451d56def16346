"""Push-T from state with the paper's transformer, sized for two CPU cores (1.2 M parameters).

python -m dpjax.train --config pusht_state_transformer_small --workdir runs/tf
"""

from dpjax.config import recipes


def get_config():
    """4 layers of 128 channels, which train about as long as the U-Net of pusht_state_small."""
    config = recipes.load("pusht_state_small")
    transformer = recipes.load("pusht_state_transformer")
    config.denoiser = transformer.denoiser
    config.denoiser.layers = 4
    config.denoiser.width = 128
    config.optim = transformer.optim
    config.optim.lr = 1e-3  # a smaller network than the paper's takes a larger rate
    config.train.steps = 15_000
    return config
