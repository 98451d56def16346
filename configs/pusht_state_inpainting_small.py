"""Push-T from state by inpainting, sized for two CPU cores.

python -m dpjax.train --config configs/pusht_state_inpainting_small.py --workdir runs/inp
"""

from configs import pusht_state_small


def get_config():
    """The U-Net of pusht_state_small over actions and observations together."""
    config = pusht_state_small.get_config()
    config.condition = "inpaint"
    return config
