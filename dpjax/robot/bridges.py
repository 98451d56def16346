"""Robots from other interfaces: LeRobot's, by its two methods, and the simulator of a task."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dpjax.core.errors import UserError
from dpjax.robot.base import Robot, Samples
from dpjax.tasks.base import Columns, Simulator


def lerobot(
    device: Any,
    now: Callable[[], float],
    *,
    state: Sequence[str],
    action: Sequence[str],
    cameras: Mapping[str, str] = {},
    fps: float,
    state_name: str = "observation.state",
    action_latency: float = 0.0,
    latency: Mapping[str, float] = {},
) -> Robot:
    """A robot with LeRobot's `get_observation()` and `send_action()`, by duck typing.

    Args:
        device: connected already.
        now: the loop's clock.
        state: names of the numbers that make up the state, in the policy's order, such as
            "shoulder_pan.pos".
        action: names of the numbers of an action, in the policy's order.
        cameras: {name for the policy: name in the observation}.

    Raises:
        UserError: by `read`, if the observation lacks a name.
    """
    last: dict[str, float] = {}

    def read() -> dict[str, Samples]:
        # LeRobot has no time stamps: what is read now counts as measured now.
        obs = device.get_observation()
        missing = sorted({*state, *cameras.values()} - obs.keys())
        if missing:
            raise UserError(
                f"the robot's observation lacks {', '.join(missing)}; it has "
                f"{', '.join(sorted(obs))}.",
                argument="state",
            )
        last.update({name: float(obs[name]) for name in action if name in obs})
        times = np.array([now()])
        # The order of the policy, whatever order the robot's dict has.
        numbers = np.array([[float(obs[name]) for name in state]], np.float32)
        images = {name: (times, np.asarray(obs[key])[None]) for name, key in cameras.items()}
        return {state_name: (times, numbers), **images}

    def send(time: float, target: np.ndarray) -> None:
        del time  # LeRobot executes at once
        last.update(zip(action, map(float, target), strict=True))
        device.send_action(dict(last))

    def hold() -> None:
        # The target that was reached last: the arm stays where it is and keeps its torque.
        if last:
            device.send_action(dict(last))

    return Robot(read, send, hold, device.disconnect, fps, latency, action_latency)


class SimulatedRobot:
    """A task's simulator as a robot, which moves by one step per control period of its clock.

    progress: [n] the task's progress after every step. env: the environment.
    """

    def __init__(self, simulator: Simulator, now: Callable[[], float], *, seed: int, fps: float,
                 hold: Callable[[Columns], np.ndarray]):  # fmt: skip
        """hold: the newest raw columns -> the action [Da] that keeps the robot where it is."""
        self.env = simulator.make()
        self.columns = simulator.reset(self.env, seed)
        self.progress: list[float] = []
        self.is_done = False
        self._simulator = simulator
        self._now = now
        self._fps = fps
        self._hold = hold
        self._action: np.ndarray | None = None  # until the next one, None: hold
        self._start: float | None = None  # when it was read first
        self._steps = 0

    def robot(self) -> Robot:
        """The functions of this robot."""
        return Robot(self._read, self._send, self._stay, self.env.close, self._fps)

    def _read(self) -> dict[str, Samples]:
        """Moves on to the present, and measures."""
        # The first reading starts the simulator's time.
        now = self._now()
        if self._start is None:
            self._start = now
        # Rounded: a loop that is a little late still finds the state of its own step.
        while self._steps < round((now - self._start) * self._fps) and not self.is_done:
            action = self._hold(self.columns) if self._action is None else self._action
            self.columns, progress, done = self._simulator.step(self.env, action)
            self.progress.append(float(progress))
            self._steps += 1
            self.is_done = bool(done) or self._steps >= self._simulator.max_steps
        times = np.array([self._start + self._steps / self._fps])
        return {name: (times, np.asarray(x)[None]) for name, x in self.columns.items()}

    def _send(self, time: float, action: np.ndarray) -> None:
        del time  # the simulator moves at the next step
        self._action = np.asarray(action)

    def _stay(self) -> None:
        self._action = None
