"""Push-T from state with flow matching, sized for two CPU cores.

python -m dpjax.train --config pusht_state_flow_small --workdir runs/pusht_flow
"""

from dpjax.config import recipes


def get_config():
    """The U-Net of pusht_state_small, which learns the velocity of a flow along straight paths."""
    config = recipes.load("pusht_state_small")
    # Only the schedule, the prediction type and the sampler change, so a step costs the same.
    config.schedule.name = "flow"
    config.predict = "velocity"
    config.sampler.name = "euler"
    config.sampler.num_steps = 10
    return config
