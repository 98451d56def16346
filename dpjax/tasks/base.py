"""What a task is: a NamedTuple of functions over an environment, and its numbers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Columns = dict[str, np.ndarray]


class Task(NamedTuple):
    """A task is what the simulator does, what the policy sees, and how it is scored.

    make: () -> env.
    reset: (env, seed) -> raw columns of the first step, {name: [...]}.
    step: (env, action [Da]) -> (raw columns, progress, done).
    observe: raw columns {name: [..., D]} -> the policy's observation {name: [..., F]}; the
        same function maps the data at training and the simulator at evaluation.
    render: env -> uint8 [H, W, 3].
    draw_actions: (frame [H, W, 3], actions [Tp, Da]) -> the frame with the plan on it.
    score, success: the largest progress of an episode -> [0, 1], and bool.
    place: (env, raw columns of one step) -> None: puts the simulator there, for pictures,
        where raw columns say all of it.
    expert: () -> (raw columns of one step -> action [Da]), a scripted policy without memory,
        where the task has one to make demonstrations with.
    mirror: raw columns {name: [..., D]}, the action among them -> those of the scene seen in
        a mirror, where the task has a mirror image that is the same task.
    max_steps: after so many steps an episode is over.
    action_low, action_high: the range the simulator is made for, each dim.
    official_seeds: the first seed for final numbers only.
    selection_seeds: the first seed for choosing among checkpoints and settings.
    demo_seeds: the first seed for demonstrations.
    columns: the names of the raw columns, in the data and from the simulator; () for all
        that the config names (`observed`).
    action: the name of the action column.
    """

    name: str
    make: Callable[[], Any]
    reset: Callable[[Any, int], Columns]
    step: Callable[[Any, np.ndarray], tuple[Columns, float, bool]]
    observe: Callable[[Columns], Columns]
    render: Callable[[Any], np.ndarray]
    draw_actions: Callable[[np.ndarray, np.ndarray], np.ndarray]
    score: Callable[[float], float]
    success: Callable[[float], bool]
    max_steps: int
    action_low: float
    action_high: float
    columns: tuple[str, ...]
    place: Callable[[Any, Columns], Any] | None = None
    expert: Callable[[], Callable[[Columns], np.ndarray]] | None = None
    mirror: Callable[[Columns], Columns] | None = None
    action: str = "action"
    official_seeds: int = 100000
    selection_seeds: int = 200000
    demo_seeds: int = 300000
