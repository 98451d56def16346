"""Push-T from a camera with the transformer, sized for two CPU cores.

python -m dpjax.train --config pusht_image_transformer_small --workdir runs/itf
"""

from dpjax.config import recipes


def get_config():
    """pusht_image_small, with network and optimizer of pusht_state_transformer_small."""
    config = recipes.load("pusht_image_small")
    transformer = recipes.load("pusht_state_transformer_small")
    config.denoiser = transformer.denoiser
    config.optim = transformer.optim
    return config
