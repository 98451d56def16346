"""What a task is: what its policy observes, and the simulator that it is evaluated in."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# Raw columns, as a data set or a simulator gives them: {name: array}.
Columns = dict[str, np.ndarray]


class Simulator(NamedTuple):
    """A task's environment, how its episodes are scored, and which seeds are for what.

    `progress` is a number that the environment reports after every step, such as the covered
    share of a goal. An episode is scored by the largest progress that it reached.

    make: () -> env, an environment without a window. Everything below that takes `env` takes
        what `make` returned.
    reset: (env, seed) -> raw columns of the first step, {name: [...]}.
    step: (env, action [Da]) -> (raw columns, progress, done).
    render: env -> uint8 [H, W, 3].
    draw_actions: (frame [H, W, 3], actions [Tp, Da]) -> a copy of the frame with the action
        chunk drawn into it.
    score: largest progress of an episode -> score in [0, 1].
    success: largest progress of an episode -> whether it succeeded.
    max_steps: an episode ends after this many steps.
    action_low, action_high: the range of actions that the environment is made for, the same for
        every dimension.
    place: (env, raw columns of one step) -> None. Puts the environment into a recorded state, for
        pictures. None if raw columns do not hold the whole state.
    expert: () -> (raw columns of one step -> action [Da]). A scripted policy without memory, which
        demonstrations can be made with. None if there is none.
    official_seeds: the first seed for final numbers. Use them for nothing else.
    selection_seeds: the first seed for choosing among checkpoints and settings.
    demo_seeds: the first seed for demonstrations.
    """

    # The environment.
    make: Callable[[], Any]
    reset: Callable[[Any, int], Columns]
    step: Callable[[Any, np.ndarray], tuple[Columns, float, bool]]
    render: Callable[[Any], np.ndarray]
    draw_actions: Callable[[np.ndarray, np.ndarray], np.ndarray]
    # Its episodes.
    score: Callable[[float], float]
    success: Callable[[float], bool]
    max_steps: int
    action_low: float
    action_high: float
    # What not every simulator can do.
    place: Callable[[Any, Columns], None] | None = None
    expert: Callable[[], Callable[[Columns], np.ndarray]] | None = None
    # Far apart, so that the three purposes never share a seed.
    official_seeds: int = 100000
    selection_seeds: int = 200000
    demo_seeds: int = 300000


class Task(NamedTuple):
    """What a policy sees and learns, and the simulator to evaluate it in, if there is one.

    name: how configs and commands call the task.
    observe: raw columns {name: [..., D]} -> the policy's observation {name: [..., F]}. The same
        function maps demonstrations in training and the simulator's columns in evaluation.
    columns: the names of the raw columns that `observe` takes; () if it takes whatever columns
        the data has (see `tasks.observed_columns`).
    action: the name of the action column in demonstrations.
    mirror: raw columns with the action among them {name: [..., D]} -> those of the mirrored scene.
        None if the mirror image of a scene is not a scene of the same task.
    simulator: None for a task that exists in recorded demonstrations only.
    """

    name: str
    observe: Callable[[Columns], Columns]
    columns: tuple[str, ...] = ()
    action: str = "action"
    mirror: Callable[[Columns], Columns] | None = None
    simulator: Simulator | None = None
