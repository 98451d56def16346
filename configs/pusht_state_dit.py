"""Push-T from state with adaLN-Zero transformer blocks (DiT, 13.1 M parameters).

python -m dpjax.train --config configs/pusht_state_dit.py --workdir runs/dit
"""

from dpjax.config import recipes


def get_config():
    """The paper's transformer's sizes and optimizer, modulated instead of cross-attending."""
    config = recipes.load("pusht_state_transformer")
    config.denoiser = dict(name="dit", layers=8, heads=4, width=256, drop=0.01)
    return config
