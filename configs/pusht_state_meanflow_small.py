"""Push-T from state with MeanFlow, which samples in one step; sized for two CPU cores.

    python -m dpjax.train --config pusht_state_meanflow_small \\
        --workdir runs/pusht_meanflow
"""

from dpjax.config import recipes


def get_config():
    """pusht_state_flow_small, but the network learns the mean velocity over an interval of time."""
    config = recipes.load("pusht_state_flow_small")
    config.method = "meanflow"
    # The loss needs a derivative along the flow, so 12,500 steps take as long as 20,000 without it.
    config.train.steps = 12_500
    config.schedule.num_levels = 1  # the derivative grows with it; 1 trains far better than 100
    config.sampler.num_steps = 1
    config.val.num_steps = 1  # validation and rollouts also sample in one step
    config.eval.num_steps = 1
    return config
