"""Push-T from state with adaLN-Zero transformer blocks (DiT, 13.1 M parameters).

python -m dpjax.train --config pusht_state_dit --workdir runs/dit
"""

from dpjax.config import recipes


def get_config():
    """pusht_state_transformer, with adaLN modulation instead of cross-attention."""
    config = recipes.load("pusht_state_transformer")
    # A new section, since the two networks have different fields.
    config.denoiser = dict(name="dit", layers=8, heads=4, width=256, drop=0.01)
    return config
