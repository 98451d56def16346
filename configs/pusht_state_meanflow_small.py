"""Push-T from state by MeanFlow, sized for two CPU cores: one step a plan.

    python -m dpjax.train --config configs/pusht_state_meanflow_small.py \\
        --workdir runs/pusht_meanflow
"""

from dpjax.config import recipes


def get_config():
    """The flow of pusht_state_flow_small, of which the network learns the mean velocity.

    Its loss takes a derivative along the flow too: 12,500 steps last as long as 20,000.
    """
    config = recipes.load("pusht_state_flow_small")
    config.method = "meanflow"
    config.train.steps = 12_500
    config.schedule.num_levels = 1  # told 0 … 100 the loss's derivative is as much steeper
    config.sampler.num_steps = 1
    config.val.num_steps = 1  # chosen and watched as it is to act
    config.eval.num_steps = 1
    return config
