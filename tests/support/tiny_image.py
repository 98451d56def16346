"""The tiny run with a camera, every augmentation on."""

from ml_collections import ConfigDict

from support import tiny_config


def get_config():
    """Four steps of a narrow ResNet."""
    config = tiny_config.get_config()
    config.task = "pusht_image"
    config.data.columns = ConfigDict(
        dict(image="observation/image", state="observation/state", action="action")
    )
    config.data.mirror = True
    config.cameras.image = ConfigDict(dict(size=(96, 96), resize=(40, 40), crop=(36, 36)))
    config.augment = dict(shift=2, brightness=0.1, contrast=0.1, saturation=0.1, hue=0.05)
    config.encoder.update(width=16, keypoints=4, features=8)
    config.optim.warmup = 1
    config.train.update(steps=4, batch=8, steps_per_call=2)
    config.log.every = 2
    config.val.every = 4
    return config
