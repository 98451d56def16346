"""The environments of a rollout, which step together, and the episode that runs in each."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dpjax.core.errors import UserError
from dpjax.inference.controller import Controller, is_finite
from dpjax.tasks.base import Columns, Simulator


@dataclass
class Running:
    """An episode that has not ended. index: its position in the list of seeds."""

    index: int
    seed: int
    keep_columns: bool
    frames: list | None
    # The present step, and lists with one element per step so far.
    raw: Columns | None = None
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
    """`sample_actions` with zeros in place of action chunks that are not finite.

    So NaN in one example breaks one episode. (The controller refuses the whole batch.)
    bad: [B], which examples of the last call were not finite.
    """

    def __init__(self, sample_actions: Callable):
        self.sample_actions = sample_actions
        self.bad = np.zeros(0, bool)

    def __call__(self, keys, obs, previous=None) -> np.ndarray:
        # A copy: jax's arrays cannot be written to.
        actions = np.array(self.sample_actions(keys, obs, previous))
        self.bad = ~is_finite(actions)
        actions[self.bad] = 0
        return actions


class Environments:
    """The environments, and the episode that runs in each (None: it is free)."""

    def __init__(self, simulator: Simulator, observe: Callable[[Columns], Columns], count: int):
        self.simulator = simulator
        self.observe = observe
        # Made when they are first used, and anew after an exception.
        self.envs: list = [None] * count
        self.running: list[Running | None] = [None] * count
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
        """Starts the next waiting episodes in the free environments; returns which these are."""
        # A reset that fails ends its episode at once, and the environment takes the next one.
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
            # A simulator that is not installed: the next seed would fail in the same way.
            raise
        except Exception as error:
            running.break_off(f"reset: {_describe(error)}")
            # An exception may have left it in any state.
            self.envs[i] = None

    def step(self, controller: Controller, policy: FinitePolicy) -> None:
        """One step of every environment whose episode has not ended."""
        # 1. The observations of all, as one batch. A free environment has none: the policy sees
        # another one's in its place, and what it answers is ignored.
        raws = [running.raw for running in self.running if running is not None]
        raws = [raws[0] if running is None else running.raw for running in self.running]
        columns = {name: np.stack([raw[name] for raw in raws]) for name in raws[0]}
        # 2. The next action of each, from its action chunk or from a new one.
        actions = controller.act(self.observe(columns))
        # 3. Those whose episode goes on take their action.
        for i, running in enumerate(self.running):
            if running is None or running.ended:
                continue
            if policy.bad[i]:
                running.break_off(f"step {len(running.progress)}: the actions are not finite")
                continue
            try:
                self._step(self.envs[i], running, actions[i], controller.chunk[i])
            except Exception as error:
                running.break_off(f"step {len(running.progress)}: {_describe(error)}")
                self.envs[i] = None

    def _step(self, env, running: Running, action: np.ndarray, chunk: np.ndarray) -> None:
        """One step of one environment: action [Da], of the action chunk [Tp, Da]."""
        simulator = self.simulator
        # The frame before the action, with what the policy intends.
        if running.frames is not None:
            running.frames.append(simulator.draw_actions(simulator.render(env), chunk))
        raw, progress, done = simulator.step(env, action)
        # A simulator that has diverged says nothing about the policy.
        if not np.isfinite(progress):
            raise ValueError(f"progress is {progress}")
        # Columns are those before the action: pairs of them are what a policy learns from.
        if running.keep_columns:
            running.columns.append(running.raw)
        running.actions.append(action)
        running.progress.append(progress)
        running.raw = raw
        # Over: solved, or out of steps. The last frame has no action after it.
        running.ended = done or len(running.progress) >= simulator.max_steps
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
        # An environment without `close` has nothing to free; None was never made.
        for env in self.envs:
            getattr(env, "close", lambda: None)()


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"
