"""Push-T from state, conditioned by inpainting: the paper's own Push-T state policy.

python -m dpjax.train --config pusht_state_inpainting --workdir runs/inpainting
"""

from dpjax.config import defaults


def get_config():
    """The paper's U-Net over actions and observations together (65.3 M parameters)."""
    config = defaults.get_config()
    config.data.dir = "data/pusht_human"
    config.condition = "inpaint"
    return config
