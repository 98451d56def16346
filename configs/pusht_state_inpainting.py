"""Push-T from state, conditioned by inpainting, as in the paper's policy for this task.

python -m dpjax.train --config pusht_state_inpainting --workdir runs/inpainting
"""

from dpjax.config import defaults


def get_config():
    """The paper's U-Net, which denoises actions and observations together (65.3 M parameters)."""
    config = defaults.get_config()
    config.data.dir = "data/pusht_human"
    config.condition = "inpaint"
    return config
