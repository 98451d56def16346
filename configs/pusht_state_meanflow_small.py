"""Push-T from state by MeanFlow, sized for two CPU cores: chunks in one step.

    python -m dpjax.train --config pusht_state_meanflow_small \\
        --workdir runs/pusht_meanflow
"""

from dpjax.config import recipes


def get_config():
    """The flow of pusht_state_flow_small; the network learns its mean velocity over an interval.

    The loss includes a derivative along the flow: 12,500 steps take as long as 20,000 without it.
    """
    config = recipes.load("pusht_state_flow_small")
    config.method = "meanflow"
    config.train.steps = 12_500
    config.schedule.num_levels = 1  # with 100 the loss's derivative is 100 times as steep
    config.sampler.num_steps = 1
    config.val.num_steps = 1  # validation and evaluation sample as the robot will
    config.eval.num_steps = 1
    return config
