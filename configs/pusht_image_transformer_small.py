"""Push-T from a camera with the transformer, sized for two CPU cores.

python -m dpjax.train --config configs/pusht_image_transformer_small.py --workdir runs/itf
"""

from configs import pusht_image_small, pusht_state_transformer_small


def get_config():
    """The camera of pusht_image_small with the network of pusht_state_transformer_small."""
    config = pusht_image_small.get_config()
    transformer = pusht_state_transformer_small.get_config()
    config.denoiser = transformer.denoiser
    config.optim = transformer.optim
    return config
