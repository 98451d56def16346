"""Push-T from state with the paper's transformer (9.0 M parameters).

python -m dpjax.train --config pusht_state_transformer --workdir runs/transformer
"""

from dpjax.config import defaults


def get_config():
    """Chi et al. 2023, table 10: 8 layers, 4 heads, 256 channels, attention dropout 0.01."""
    config = defaults.get_config()
    config.data.dir = "data/pusht_human"
    config.denoiser = dict(
        name="transformer",
        layers=8,
        heads=4,  # with width / heads channels each
        width=256,
        cond_layers=0,  # encoder layers over time and observations; 0: one MLP per token
        causal=True,  # an action attends only to itself and to earlier ones
        encoder_only=False,  # True: one sequence of all tokens, no cross-attention
        drop=0.01,  # in and after every block
        drop_tokens=0.0,
    )
    # The optimizer of the paper's transformer, with weight decay for weight matrices only.
    config.optim.b1 = 0.9
    config.optim.b2 = 0.95
    config.optim.weight_decay = 0.1
    config.optim.decay = "matrices"
    config.optim.warmup = 1000
    return config
