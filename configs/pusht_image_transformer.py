"""Push-T from a camera with the paper's transformer: image features enter as tokens.

python -m dpjax.train --config pusht_image_transformer --workdir runs/image_tf
"""

from dpjax.config import recipes


def get_config():
    """The image task with the transformer and optimizer of the state task."""
    config = recipes.load("pusht_image")
    transformer = recipes.load("pusht_state_transformer")
    config.denoiser = transformer.denoiser
    config.optim = transformer.optim
    return config
