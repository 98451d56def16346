"""Push-T from a camera, sized for two CPU cores.

python -m dpjax.train --config pusht_image_small --workdir runs/image_small
"""

from dpjax.config import recipes


def get_config():
    """A quarter of the ResNet's width on images of 66 px, and the U-Net of pusht_state_small."""
    config = recipes.load("pusht_image")
    config.data.mirror = True
    # The last maps are 3 x 3, as the paper's at 84 px, for 0.6 of the work.
    config.cameras.image.resize = (72, 72)
    config.cameras.image.crop = (66, 66)
    config.encoder.width = 16
    config.denoiser.widths = (64, 128, 256)
    config.denoiser.kernel_size = 3
    config.predict = "sample"  # learned in fewer steps than the noise (see pusht_demo)
    config.optim.lr = 1e-3
    config.train.steps = 15_000
    config.train.steps_per_call = 5
    config.eval.every = 7_500
    config.val.every = 1_000
    config.save.every = 500
    return config
