"""Push-T from a camera, sized for two CPU cores.

python -m dpjax.train --config pusht_image_small --workdir runs/image_small
"""

from dpjax.config import recipes


def get_config():
    """A ResNet of a quarter of the width on 66 px crops, and the U-Net of pusht_state_small."""
    config = recipes.load("pusht_image")
    config.data.mirror = True
    # The last feature maps are 3 x 3, as with the paper's 84 px, at 0.6 times the cost.
    config.cameras.image.resize = (72, 72)
    config.cameras.image.crop = (66, 66)
    config.encoder.width = 16
    config.denoiser.widths = (64, 128, 256)
    config.denoiser.kernel_size = 3
    config.predict = "sample"  # learned in fewer steps than the noise (see pusht_demo)
    config.optim.lr = 1e-3
    config.train.steps = 15_000
    config.train.steps_per_call = 5  # steps with images take longer
    config.eval.every = 7_500
    config.val.every = 1_000
    config.save.every = 500
    return config
