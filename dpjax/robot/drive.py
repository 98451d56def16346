"""Runs an episode on a robot: the cycles of `loop`, in time, until something ends it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from dpjax.robot.acting import Acting
from dpjax.robot.base import ENDS, Command, Robot
from dpjax.robot.cadence import summary
from dpjax.robot.clock import Clock
from dpjax.robot.loop import Loop, Step
from dpjax.robot.worker import Worker


class Attempt(NamedTuple):
    """An episode on the robot.

    steps: those in which an action was sent. ended_by: the command of a person, "steps" or
    "patience". reason: a text, such as the last error. report: see `cadence.summary`.
    lateness, work: seconds of each cycle.
    """

    steps: list[Step]
    ended_by: str
    reason: str
    report: dict[str, Any]
    lateness: list[float]
    work: list[float]


def drive(
    robot: Robot,
    acting: Acting,
    worker: Worker,
    clock: Clock,
    key: jax.Array,
    *,
    operator: Callable[[], Command] = lambda: Command.RUN,
    correct: Callable[[], np.ndarray] | None = None,
    max_steps: int | None = None,
    patience: float = 5.0,
    on_cycle: Callable[[int], None] = lambda k: None,
) -> Attempt:
    """Runs one episode, and always leaves the robot holding.

    Args:
        key: a random key, from which the keys of all chunks are folded.
        operator: asked once per cycle, must return at once.
        max_steps: the episode ends after so many control steps; None for no end.
        patience: seconds of holding, other than a pause, after which the episode ends.
        on_cycle: called with k after each cycle, for a progress bar.

    Raises:
        UserError: if the chunk is too short for the delays.
    """
    loop = Loop(robot, acting, worker, clock, key, correct)
    lateness: list[float] = []
    work: list[float] = []
    ended_by = ""
    start = clock.now()
    k = 0
    # The hold at the end is in `finally`: whatever goes wrong, the robot must not go on.
    try:
        while not ended_by:
            time = start + k * loop.period
            # Wait for the step, and note how late the wait ended.
            clock.until(time)
            began = clock.now()
            lateness.append(began - time)
            # A person's word comes before everything else.
            command = operator()
            if command in ENDS:
                ended_by = command.value
            elif began - time > loop.period / 2:
                # Too late for this step's action. The grid goes on, it is never stretched.
                loop.counts.missed += 1
            else:
                loop.cycle(k, time, command)
            # How long the cycle took; beyond a period the next one is late.
            work.append(clock.now() - began)
            loop.counts.over_budget += work[-1] > loop.period
            on_cycle(k)
            k += 1
            if max_steps is not None and k >= max_steps:
                ended_by = ended_by or "steps"
            if loop.idle_since is not None and clock.now() - loop.idle_since > patience:
                ended_by = ended_by or "patience"
    finally:
        robot.hold()
        worker.close()
    report = summary(loop.counts, lateness, work)
    return Attempt(loop.steps, ended_by, loop.reason, report, lateness, work)
