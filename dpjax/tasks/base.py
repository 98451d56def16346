"""What a task is: what its policy observes, and the simulator that it is evaluated in."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# Raw columns {name: array}, as a data set stores them and as a simulator returns them, before
# `Task.observe` turns them into the policy's observation.
Columns = dict[str, np.ndarray]


class Simulator(NamedTuple):
    """A task's environment, the scoring of its episodes, and the seeds for each purpose.

    `progress` is a number that the environment reports after every step, such as the covered
    share of a goal. An episode is scored by the largest progress that it reached.

    make: () -> env, an environment without a window. The other functions take this `env`.
    reset: (env, seed) -> raw columns of the first step, {name: [...]}.
    step: (env, action [Da]) -> (raw columns, progress, done).
    render: env -> uint8 [H, W, 3].
    draw_actions: (frame [H, W, 3], actions [Tp, Da]) -> a copy of the frame with the action
        chunk drawn into it.
    score: largest progress of an episode -> score in [0, 1].
    success: largest progress of an episode -> whether the episode succeeded.
    max_steps: an episode ends after this many steps.
    action_low, action_high: the range of actions that the environment is designed for, the same
        for every dimension.
    place: (env, raw columns of one step) -> None. Puts the environment into a recorded state, for
        pictures. None if raw columns do not hold the whole state.
    expert: () -> (raw columns of one step -> action [Da]). Makes a scripted policy without memory,
        to record demonstrations with. None if the task has none.
    official_seeds: the first seed for final results. Use these seeds for nothing else.
    selection_seeds: the first seed for the choice among checkpoints and settings.
    demo_seeds: the first seed for recording demonstrations.
    """

    # The environment: how to make it, drive it and draw it.
    make: Callable[[], Any]
    reset: Callable[[Any, int], Columns]
    step: Callable[[Any, np.ndarray], tuple[Columns, float, bool]]
    render: Callable[[Any], np.ndarray]
    draw_actions: Callable[[np.ndarray, np.ndarray], np.ndarray]
    # Its episodes: how they are scored, when they end, which actions they expect.
    score: Callable[[float], float]
    success: Callable[[float], bool]
    max_steps: int
    action_low: float
    action_high: float
    # Optional abilities, which not every simulator has.
    place: Callable[[Any, Columns], None] | None = None
    expert: Callable[[], Callable[[Columns], np.ndarray]] | None = None
    # 100,000 apart, so that the three purposes do not share a seed: a checkpoint is not selected
    # on the episodes that report it, and no demonstration shows one of them.
    official_seeds: int = 100000
    selection_seeds: int = 200000
    demo_seeds: int = 300000


class Task(NamedTuple):
    """What a policy observes and learns, and the simulator to evaluate it in, if there is one.

    name: how configs and commands call the task.
    observe: raw columns {name: [..., D]} -> the policy's observation {name: [..., F]}. The same
        function maps demonstrations in training and the simulator's columns in evaluation.
    columns: the names of the raw columns that `observe` takes; () if it takes whatever columns
        the data has (see `tasks.observed_columns`).
    action: the name of the action column in demonstrations.
    mirror: raw columns and action {name: [..., D]} -> those of the mirrored scene. None if the
        mirror image of a scene is not a scene of the same task.
    simulator: None for a task that has recorded demonstrations only.
    """

    name: str
    # Takes one step or any batch of steps, in numpy.
    observe: Callable[[Columns], Columns]
    columns: tuple[str, ...] = ()
    action: str = "action"
    mirror: Callable[[Columns], Columns] | None = None
    # Without it the task cannot be rolled out, but everything else works.
    simulator: Simulator | None = None
