"""The environments of a rollout, which step in lockstep, and the episodes that run in them."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dpjax.core.errors import UserError
from dpjax.inference.chunks import is_finite
from dpjax.inference.controller import Controller
from dpjax.tasks.base import Columns, Simulator


@dataclass
class Running:
    """An episode in progress.

    index: the position of its seed in the list of seeds.
    frames: a list for the rendered frames, or None if the episode is not filmed.
    broken: why the episode does not count, or None.
    """

    index: int
    seed: int
    keep_columns: bool
    frames: list | None
    # The raw columns of the present step, on which the next action depends.
    raw: Columns | None = None
    # One element per step so far.
    columns: list = field(default_factory=list)
    actions: list = field(default_factory=list)
    progress: list = field(default_factory=list)
    broken: str | None = None
    ended: bool = False

    def break_off(self, reason: str) -> None:
        """Ends the episode as one that does not count."""
        self.broken = reason
        self.ended = True


class FinitePolicy:
    """`sample_actions`, with zeros in place of each action chunk that is not finite.

    A NaN in one example then breaks one episode. (The controller would refuse the whole batch.)
    bad: [B], which action chunks of the last call were not finite.
    """

    def __init__(self, sample_actions: Callable):
        self.sample_actions = sample_actions
        self.bad = np.zeros(0, bool)  # before the first call

    def __call__(self, keys, obs, previous=None, *committed) -> np.ndarray:
        # A copy, since JAX's arrays are read-only.
        actions = np.array(self.sample_actions(keys, obs, previous, *committed))
        self.bad = ~is_finite(actions)
        actions[self.bad] = 0  # never executed: `Environments.step` ends these episodes
        return actions


class Environments:
    """A fixed number of environments, each with one running episode or free (None)."""

    def __init__(self, simulator: Simulator, observe: Callable[[Columns], Columns], count: int):
        self.simulator = simulator
        self.observe = observe
        # An environment is made on first use, and made again after an exception.
        self.envs: list = [None] * count
        self.running: list[Running | None] = [None] * count
        # Episodes that ended before their first step; `take_ended` returns them too.
        self._broken_at_reset: list[Running] = []

    @property
    def count(self) -> int:
        """How many environments there are: the policy's batch size."""
        return len(self.envs)

    def seed(self, i: int) -> int:
        """The seed of the episode that runs in environment i."""
        return self.running[i].seed

    @property
    def busy(self) -> bool:
        """Whether an episode is running."""
        return any(running is not None for running in self.running)

    def start(self, waiting: deque) -> list[int]:
        """Starts waiting episodes in the free environments; returns those environments' indices."""
        # If a reset fails, its episode ends at once, and the environment takes the next one.
        started = []
        for i in range(len(self.envs)):
            while waiting and self.running[i] is None:
                running = waiting.popleft()
                self._reset(i, running)
                if running.broken:
                    self._broken_at_reset.append(running)
                else:
                    self.running[i] = running
                    started.append(i)
        return started

    def _reset(self, i: int, running: Running) -> None:
        try:
            if self.envs[i] is None:
                self.envs[i] = self.simulator.make()
            running.raw = self.simulator.reset(self.envs[i], running.seed)
        except UserError:
            # Such as a simulator that is not installed: every other seed would fail the same way.
            raise
        except Exception as error:
            running.break_off(f"reset: {_describe(error)}")
            # The exception may have left the environment in any state: the next episode gets a
            # new one.
            self.envs[i] = None

    def step(self, controller: Controller, policy: FinitePolicy) -> None:
        """One step of every environment whose episode has not ended."""
        # 1. The raw columns of all, as one batch {name: [B, ...]}. A free environment has none. It
        # takes those of a busy one, and its actions are ignored: the batch keeps its size.
        filler = next(running.raw for running in self.running if running is not None)
        raws = [filler if running is None else running.raw for running in self.running]
        columns = {name: np.stack([raw[name] for raw in raws]) for name in raws[0]}
        # 2. The next action of each [B, Da]. The controller samples new action chunks when the
        # present ones are used up.
        actions = controller.act(self.observe(columns))
        # 3. Each environment whose episode goes on executes its action.
        for i, running in enumerate(self.running):
            if running is None or running.ended:
                continue
            # `bad` is of the chunks being executed: all environments get theirs at the same step.
            if policy.bad[i]:
                running.break_off(f"step {len(running.progress)}: the actions are not finite")
                continue
            try:
                self._step(self.envs[i], running, actions[i], controller.chunk[i])
            except Exception as error:
                running.break_off(f"step {len(running.progress)}: {_describe(error)}")
                self.envs[i] = None  # as after a reset that failed

    def _step(self, env, running: Running, action: np.ndarray, chunk: np.ndarray) -> None:
        """One step of one environment: executes action [Da] of the action chunk [Tp, Da]."""
        simulator = self.simulator
        # The frame before the action, with the action chunk drawn into it.
        if running.frames is not None:
            running.frames.append(simulator.draw_actions(simulator.render(env), chunk))
        raw, progress, done = simulator.step(env, action)
        # The physics has diverged: this says nothing about the policy, so the episode is broken.
        if not np.isfinite(progress):
            raise ValueError(f"progress is {progress}")
        # The columns before the action, so that (columns, action) is a pair to learn from.
        if running.keep_columns:
            running.columns.append(running.raw)
        running.actions.append(action)
        running.progress.append(progress)
        running.raw = raw
        # Solved, or out of steps.
        running.ended = done or len(running.progress) >= simulator.max_steps
        # The last frame shows the result: no action follows it.
        if running.ended and running.frames is not None:
            running.frames.append(simulator.render(env))

    def take_ended(self) -> list[Running]:
        """Frees the environments whose episodes have ended; returns these episodes."""
        ended = self._broken_at_reset
        self._broken_at_reset = []
        for i, running in enumerate(self.running):
            if running is not None and running.ended:
                ended.append(running)
                self.running[i] = None
        return ended

    def close(self) -> None:
        """Closes the environments that can be closed."""
        # An environment without `close` has nothing to free, and None was never made.
        for env in self.envs:
            getattr(env, "close", lambda: None)()


def _describe(error: Exception) -> str:
    # On one line: `split` takes line breaks and runs of spaces alike.
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
