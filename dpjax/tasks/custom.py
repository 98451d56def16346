"""Demonstrations of one's own, without a simulator.

The policy observes the columns of `config.data.columns` other than the action, as they
are. Nothing can be rolled out: such a policy is judged on demonstrations that were held
out (`dpjax.validate`), and on the robot.
"""

import numpy as np

from dpjax.core.errors import UserError
from dpjax.tasks.base import Columns, Task


def _no_simulator(*_):
    raise UserError(
        "task 'own' has no simulator to roll out in: judge the run on held-out demonstrations "
        "(python -m dpjax.validate), give dpjax.sample an --observation, or name a task of "
        "dpjax/tasks (config.task); in training set config.eval.every=0."
    )


def observe(columns: Columns) -> Columns:
    """{name: [..., D]} -> the same, numbers as float32, images as they are."""
    is_image = lambda x: x.dtype == np.uint8
    return {key: x if is_image(x) else np.asarray(x, np.float32) for key, x in columns.items()}


TASK = Task(
    name="own",
    make=_no_simulator,
    reset=_no_simulator,
    step=_no_simulator,
    observe=observe,
    render=_no_simulator,
    draw_actions=_no_simulator,
    score=_no_simulator,
    success=_no_simulator,
    max_steps=0,
    action_low=-np.inf,
    action_high=np.inf,
    columns=(),
)
