"""Push-T from a camera with the paper's transformer: what the camera gives enters as tokens.

python -m dpjax.train --config configs/pusht_image_transformer.py --workdir runs/image_tf
"""

from configs import pusht_image, pusht_state_transformer


def get_config():
    """The image task with the transformer and optimizer of the state task."""
    config = pusht_image.get_config()
    transformer = pusht_state_transformer.get_config()
    config.denoiser = transformer.denoiser
    config.optim = transformer.optim
    return config
