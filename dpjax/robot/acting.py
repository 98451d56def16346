"""A policy as the loop uses it, and the delay that it is executed with."""

from collections.abc import Callable, Mapping
import math
from typing import NamedTuple

import numpy as np

from dpjax.core.errors import UserError
from dpjax.inference.controller import SampleActions
from dpjax.robot.base import Robot
from dpjax.robot.limits import Limits
from dpjax.robot.timeline import Column

Observe = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]

# Sampling that takes at most this share of a step is done inside the step.
INSIDE_STEP = 0.3


class Acting(NamedTuple):
    """A policy for one robot, and how the loop uses it.

    sample_actions: for a batch of one; `Run.sample_actions`, a `RemotePolicy`, or any function.
    observed, predicted, executed: To, Tp, Ta.
    action_dim: Da.
    columns: {sensor: how its samples become an observation}, the sensors that `observe` takes.
    observe: {sensor: [To, ...]} -> {name: [To, ...]}, as `Task.observe`.
    promise: seconds that sampling is promised to take (`measure` gives the 99 % quantile).
    limits: what is refused; None for numbers that are not finite only.
    clamp: actions beyond the limits are brought back to them instead of refused.
    """

    sample_actions: SampleActions
    observed: int
    predicted: int
    executed: int
    action_dim: int
    columns: Mapping[str, Column]
    observe: Observe = lambda columns: columns
    promise: float = 0.0
    limits: Limits | None = None
    clamp: bool = False


def delays(robot: Robot, acting: Acting) -> tuple[int, int]:
    """(o, p): steps between an observation and its first action, and steps that sampling takes.

    Raises UserError if the chunk is too short for them.
    """
    period = 1 / robot.fps
    sensing = max((robot.latency.get(name, 0.0) for name in acting.columns), default=0.0)
    # Rounded first: a latency of exactly one step must not become two by its last digit.
    offset = math.ceil(round((sensing + robot.action_latency) / period, 6))
    # Short sampling is done inside its step; anything longer takes whole steps beside the loop.
    planning = 0
    if acting.promise > INSIDE_STEP * period:
        planning = math.ceil(round(acting.promise / period, 6))
    # In a simulation both together are one delay (`Controller`).
    delay = offset + planning
    needed = acting.observed - 1 + delay + acting.executed
    if needed > acting.predicted or planning > acting.executed:
        raise UserError(
            f"executed={acting.executed} does not fit a delay of {delay} steps: {offset} of "
            f"sensors and actuators, {planning} of sampling in {1e3 * acting.promise:.0f} ms. "
            f"observed - 1 + delay + executed = {needed}, but {acting.predicted} steps are "
            "predicted. Sample in fewer steps, or execute fewer actions.",
            argument="executed",
        )
    return offset, planning
