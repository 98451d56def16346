"""MetaWorld from a camera and the hand's position, with ten scripted demonstrations per task.

    python -m dpjax.demos --task metaworld_image/push --episodes 10 --keep success \\
        --out data/metaworld_image/push
    python -m dpjax.train --config metaworld_image \\
        --config.task=metaworld_image/push --config.data.dir=data/metaworld_image/push \\
        --workdir runs/metaworld_image/push
"""

from ml_collections import ConfigDict

from dpjax.config import recipes


def get_config():
    """The U-Net of metaworld, on the features of a ResNet-18 with a quarter of the usual width."""
    config = recipes.load("metaworld")
    config.task = "metaworld_image/push"
    config.data.dir = "data/metaworld_image/push"
    config.data.columns = ConfigDict(
        dict(image="observation/image", state="observation/state", action="action")
    )
    config.cameras.image = ConfigDict(dict(size=(96, 96), resize=(), crop=(84, 84)))
    config.encoder.width = 16  # instead of 64
    config.train.steps_per_call = 5  # steps with images take longer
    return config
