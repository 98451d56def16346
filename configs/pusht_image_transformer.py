"""Push-T from a camera with the paper's transformer, which gets image features as tokens.

python -m dpjax.train --config pusht_image_transformer --workdir runs/image_tf
"""

from dpjax.config import recipes


def get_config():
    """pusht_image, with the network and the optimizer of pusht_state_transformer."""
    config = recipes.load("pusht_image")
    transformer = recipes.load("pusht_state_transformer")
    config.denoiser = transformer.denoiser
    config.optim = transformer.optim
    return config
