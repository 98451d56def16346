"""Push-T from a camera and the agent's position, at the paper's sizes (262 M parameters).

python -m dpjax.convert zarr pusht_cchi_v7_replay.zarr data/pusht_image --keys img,state
python -m dpjax.train --config pusht_image --workdir runs/pusht_image
"""

from ml_collections import ConfigDict

from dpjax.config import defaults


def get_config():
    """The configuration of the paper's code: U-Net 512-1024-2048, ResNet-18, crops of 84 px."""
    config = defaults.get_config()
    config.task = "pusht_image"
    config.data.dir = "data/pusht_image"  # 206 episodes, 25,650 steps
    config.data.columns = ConfigDict(
        dict(image="observation/img", state="observation/state", action="action")
    )
    # Random crops of 84 x 84 px in training, the central one in sampling.
    config.cameras.image = ConfigDict(dict(size=(96, 96), resize=(), crop=(84, 84)))
    config.denoiser.widths = (512, 1024, 2048)
    config.denoiser.time_features = 128
    config.train.steps = 1_200_000  # 3,050 epochs
    config.train.batch = 64
    return config
