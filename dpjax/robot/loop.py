"""The control loop: reads sensors, samples chunks beside the robot, checks and sends actions.

Control step k begins at t_k = t_0 + k dt and sends the action that the robot is to reach at
t_k + action_latency, *target* k. A chunk that is requested in step k gets observations that belong
to target s = k - o: they lie o = ⌈(sensing latency + action latency) / dt⌉ steps before the actions
that can still be sent. Sampling is promised to take p steps, so the chunk takes over in step k + p,
at its own step. In simulation this is a delay of d = o + p steps:

    predicted   0 … To-2 | To-1 … To-2+d | To-1+d … To-2+d+Ta | …
                  past   |   committed   |      executed      | used only if the next one is late

The promise is kept in both directions: a chunk that is ready earlier waits, so that what the robot
does depends on *which* chunks were late and not on how fast the others were. A late chunk joins at
its own step. No action is sent twice, out of order, or more than half a step late.

The loop checks every chunk, whoever sampled it. It is not a safety-rated stop.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from dpjax.core.errors import UserError
from dpjax.robot import chunks, limits, timeline
from dpjax.robot.acting import Acting, delays
from dpjax.robot.base import Command, Robot, Samples
from dpjax.robot.cadence import Counts
from dpjax.robot.chunks import Chunk
from dpjax.robot.clock import Clock
from dpjax.robot.timeline import Stale
from dpjax.robot.worker import Worker

# What a policy may raise while the loop goes on: its answer is wrong, late, or does not come.
FAILURES = (UserError, OSError, TimeoutError)


class Step(NamedTuple):
    """One control step in which an action was sent, for recordings.

    time: seconds of the clock. columns: {sensor: [...]}, the observation at that time.
    action: [Da] what was sent. planned: [Da] what the policy wanted, NaN if it had no action.
    is_intervention: a person acted. chunk: the number of the chunk, -1 for a person's action.
    """

    time: float
    columns: dict[str, np.ndarray]
    action: np.ndarray
    planned: np.ndarray
    is_intervention: bool
    chunk: int


class Loop:
    """An episode under way. `drive` runs it; tests may call `cycle` themselves."""

    def __init__(
        self,
        robot: Robot,
        acting: Acting,
        worker: Worker,
        clock: Clock,
        key: jax.Array,
        correct: Callable[[], np.ndarray] | None = None,
    ):
        """correct: () -> action [Da] of a person, for Command.CORRECT."""
        self.robot = robot
        self.acting = acting
        self.counts = Counts()
        self.steps: list[Step] = []
        self.reason = ""
        self._worker = worker
        self._clock = clock
        self._key = key
        self._correct = correct
        self.offset, self.planning = delays(robot, acting)
        self.period = 1 / robot.fps
        self._samples: dict[str, Samples] = {}
        self._sent: dict[int, np.ndarray] = {}  # {target: action}, the last Tp of them
        self._chunk: Chunk | None = None  # under execution
        self._request: int | None = None  # the step in which the chunk being sampled was requested
        self._is_late = False  # that chunk has missed its step
        self._next_request = 0
        self._number = 0  # of the chunk that is requested next
        self.idle_since: float | None = None  # when the robot began to hold

    # One cycle -------------------------------------------------------------------------------

    def cycle(self, k: int, time: float, command: Command) -> None:
        """Control step k, which begins at `time`. Sends one action, or holds."""
        self._read(time)
        if command is Command.CORRECT and self._correct is not None:
            self._forget()
            self._act(k, time, np.asarray(self._correct(), np.float64), is_intervention=True)
            return
        if command is not Command.RUN:
            # What was sampled before a pause belongs to a past that is over.
            self._forget()
            self._hold(time, wanted=True)
            return
        self._take_over(k)
        if self._request is None and k >= self._next_request:
            self._ask(k, time)
            # Without planning steps the chunk is used in this step.
            self._take_over(k)
        action = None if self._chunk is None else self._chunk.action(k)
        if action is None:
            self._hold(time)
        else:
            self._act(k, time, action)

    def _read(self, time: float) -> None:
        """Adds the newest samples, by the times of their events."""
        kept = (self.acting.observed + self.offset + 2) * self.period
        for name, (times, values) in self.robot.read().items():
            if name not in self.acting.columns:
                continue
            events = np.asarray(times, np.float64) - self.robot.latency.get(name, 0.0)
            self._samples[name] = timeline.append(
                self._samples.get(name), (events, np.asarray(values)), name, time - kept
            )

    # Chunks ----------------------------------------------------------------------------------

    def _ask(self, k: int, time: float) -> None:
        """Requests a chunk for the observations that belong to target k - o."""
        acting = self.acting
        step = k - self.offset
        newest = time + self.robot.action_latency - self.offset * self.period
        grid = newest + self.period * np.arange(1 - acting.observed, 1)
        try:
            columns = timeline.history(self._samples, acting.columns, grid, self.period / 4)
        except Stale as error:
            self.counts.stale += 1
            self.reason = str(error)
            return
        obs = {name: x[None] for name, x in acting.observe(columns).items()}
        shape = (acting.predicted, acting.action_dim)
        moved = chunks.previous(self._chunk, self._sent, step, shape, acting.observed)
        delay = self.offset + self.planning
        known = np.array([chunks.committed(moved, acting.observed, delay)], np.int32)
        keys = jax.random.fold_in(self._key, self._number)[None]
        inputs = (keys, obs, None if moved is None else moved[None], *((known,) if delay else ()))
        self._worker.start(lambda: np.asarray(acting.sample_actions(*inputs))[0])
        self._request = k
        self._is_late = False

    def _take_over(self, k: int) -> None:
        """Uses the chunk that is being sampled, if its promised step has come and it is ready."""
        if self._request is None or k < self._request + self.planning:
            return
        # Without planning steps the chunk is waited for, but never beyond the half of a step: a
        # server may have died.
        if not self._worker.is_ready(0.0 if self.planning else self.period / 2):
            self.counts.late += not self._is_late
            self._is_late = True
            return
        requested = self._request
        self._request = None
        try:
            actions = self._worker.result()
        except FAILURES as error:
            self.counts.failed += 1
            self.reason = str(error)
            return  # the next cycle asks again
        chunk = Chunk(actions, self.acting.observed, requested - self.offset, self._number)
        self._number += 1
        if k >= chunk.end:
            self.counts.outdated += 1
            return
        self._check(chunk, k)

    def _check(self, chunk: Chunk, k: int) -> None:
        """Executes the chunk from target k on, if it keeps the limits."""
        checked = limits.check(
            self.acting.limits,
            chunk.actions[chunk.index(k) :],
            self._sent.get(k - 1),
            clamp=self.acting.clamp,
        )
        if checked.problems:
            self.reason = "; ".join(checked.problems)
        if checked.actions is None:
            # Neither this chunk nor the rest of the one before: the robot holds.
            self.counts.refused += 1
            self._chunk = None
            return
        self.counts.clamped += bool(checked.problems)
        self.counts.chunks += 1
        actions = np.array(chunk.actions)
        actions[chunk.index(k) :] = checked.actions
        self._chunk = chunk._replace(actions=actions)
        # Counted from the step of the request: a late chunk does not shift those after it.
        self._next_request = max(k, chunk.step + self.offset + self.acting.executed)

    def _forget(self) -> None:
        """Drops the chunk under execution and the one being sampled."""
        self._chunk = None
        self._request = None
        self._next_request = 0

    # Actions ---------------------------------------------------------------------------------

    def _act(
        self, k: int, time: float, action: np.ndarray, *, is_intervention: bool = False
    ) -> None:
        """Sends the action of target k, unless it is a person's and breaks the limits."""
        planned = np.full(self.acting.action_dim, np.nan)
        number = -1
        if is_intervention:
            # A person may move as they like inside the range; a jump is theirs to answer for.
            checked = limits.check(self.acting.limits, action[None], None, clamp=True)
            if checked.actions is None:
                self.counts.refused += 1
                self.reason = "; ".join(checked.problems)
                self._hold(time)
                return
            action = checked.actions[0]
        else:
            assert self._chunk is not None
            planned = action
            number = self._chunk.number
        # Reading and sampling may have taken the time in which the action was of use.
        if self._clock.now() - time > self.period / 2:
            self.counts.missed += 1
            return
        self.robot.send(time + self.robot.action_latency, action)
        self.counts.sent += 1
        self.idle_since = None
        self._sent[k] = action
        self._sent.pop(k - self.acting.predicted, None)
        columns = {
            name: timeline.resample(*self._samples[name], column, np.array([time]))[0]
            for name, column in self.acting.columns.items()
            if name in self._samples
        }
        self.steps.append(Step(time, columns, action, planned, is_intervention, number))

    def _hold(self, time: float, *, wanted: bool = False) -> None:
        """The robot's safe action. wanted: a person paused, which patience does not count."""
        self.robot.hold()
        if self.counts.sent:
            self.counts.held += 1
        else:
            self.counts.starting += 1
        if wanted:
            self.idle_since = None
        elif self.idle_since is None:
            self.idle_since = time
