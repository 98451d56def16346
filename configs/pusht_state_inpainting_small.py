"""Push-T from state, conditioned by inpainting, sized for two CPU cores.

python -m dpjax.train --config pusht_state_inpainting_small --workdir runs/inp
"""

from dpjax.config import recipes


def get_config():
    """The U-Net of pusht_state_small, which denoises actions and observations together."""
    config = recipes.load("pusht_state_small")
    config.condition = "inpaint"
    return config
