"""Push-T from a camera, sized for two CPU cores.

    python -m dpjax.train --config configs/pusht_image_small.py --workdir runs/image_small
"""

from configs import pusht_image


def get_config():
    """A quarter of the ResNet's width, and the U-Net of pusht_state_small."""
    config = pusht_image.get_config()
    config.data.mirror = True
    config.encoder.width = 16
    config.denoiser.widths = (64, 128, 256)
    config.denoiser.kernel_size = 3
    config.optim.lr = 5e-4
    config.train.steps = 12_000
    config.train.steps_per_call = 5
    config.eval.every = 4_000
    config.val.every = 1_000
    config.save.every = 500
    return config
