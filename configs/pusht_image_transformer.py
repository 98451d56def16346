"""Push-T from a camera with the paper's transformer: what the camera gives enters as tokens.

python -m dpjax.train --config configs/pusht_image_transformer.py --workdir runs/image_tf
"""

from dpjax.config import recipes


def get_config():
    """The image task with the transformer and optimizer of the state task."""
    config = recipes.load("pusht_image")
    transformer = recipes.load("pusht_state_transformer")
    config.denoiser = transformer.denoiser
    config.optim = transformer.optim
    return config
