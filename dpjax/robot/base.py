"""What the loop knows of a robot: functions to read, send and hold, and its times."""

from collections.abc import Callable, Mapping
import enum
from typing import NamedTuple

import numpy as np

# What a sensor measured: times [n] in seconds of the loop's clock, ascending, and values [n, ...].
Samples = tuple[np.ndarray, np.ndarray]


class Robot(NamedTuple):
    """A robot as functions. All times are seconds of one clock, such as `time.monotonic`.

    read: () -> {sensor: (times [n], values [n, ...])}, what has been measured since the last call,
        or any number of the newest samples. A time says when the measurement arrived; `latency`
        says how much older it is.
    send: (time, action [Da]) -> None. The action is a target, and `time` is when it is to be
        reached. The call must return at once.
    hold: () -> None. The robot's own safe action. It is called in every cycle in which no action
        may be sent: the robot decides what is safe, since zeros are not.
    close: () -> None, called once at the end of the loop, whatever ended it.
    fps: control steps per second, those that the policy was trained with.
    latency: {sensor: seconds from the event to the arrival of its measurement}; 0 if missing.
    action_latency: seconds between `send` and the movement.
    """

    read: Callable[[], Mapping[str, Samples]]
    send: Callable[[float, np.ndarray], None]
    hold: Callable[[], None]
    close: Callable[[], None]
    fps: float
    latency: Mapping[str, float] = {}
    action_latency: float = 0.0


class Command(enum.Enum):
    """What a person asks of the loop; asked once per cycle."""

    RUN = "run"  # the policy acts
    PAUSE = "pause"  # the robot holds
    CORRECT = "correct"  # a person acts
    SUCCESS = "success"  # the episode ends, and it was a success
    FAILURE = "failure"  # the episode ends, and it was a failure
    DROP = "drop"  # the episode ends, and is not recorded
    STOP = "stop"  # the episode and the session end


# Commands that end an episode.
ENDS = (Command.SUCCESS, Command.FAILURE, Command.DROP, Command.STOP)
