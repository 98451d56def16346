"""Task `custom`: your own demonstrations, without a simulator.

The policy observes all columns of the data except the action, unchanged. Without a simulator
there are no rollouts: evaluate the policy on held-out demonstrations (`python -m dpjax.validate`)
and on the robot.
"""

import numpy as np

from dpjax.tasks.base import Columns, Task


def observe(columns: Columns) -> Columns:
    """{name: [..., D]} -> the same columns: numbers as float32, uint8 images unchanged."""
    # Images stay uint8 until the device: as float32 they would take four times the memory.
    is_image = lambda x: x.dtype == np.uint8
    return {key: x if is_image(x) else np.asarray(x, np.float32) for key, x in columns.items()}


# No `columns`: the observations are those that the data has. No `mirror`: nothing is known of the
# scene.
TASK = Task(name="custom", observe=observe)
