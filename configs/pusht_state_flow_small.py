"""Push-T from state by flow matching, sized for two CPU cores.

python -m dpjax.train --config pusht_state_flow_small --workdir runs/pusht_flow
"""

from dpjax.config import recipes


def get_config():
    """The U-Net of pusht_state_small on straight lines; a step costs the same."""
    config = recipes.load("pusht_state_small")
    config.schedule.name = "flow"
    config.predict = "velocity"
    config.sampler.name = "euler"
    config.sampler.num_steps = 10
    return config
