"""Columns that no policy observes by default: a recording's own counts and clocks, and its future.

They tell a policy where in an episode it is, or how the episode ends. Training on them looks well,
and on the robot nobody knows them.
"""

from collections.abc import Mapping

import numpy as np

# Names of what a recording counts and clocks.
COUNTERS = frozenset(
    {
        *("timestamp", "timestamps", "time", "times", "t", "step", "steps", "step_id"),
        *("index", "indices", "frame_index", "episode_index", "task_index", "episode_id"),
        *("frame", "frame_id", "row", "episode", "is_first", "is_last", "is_terminal"),
        *("reward", "rewards", "done", "dones", "discount", "next.reward", "next.done"),
        *("next.success", "next.truncated", "success", "fps"),
    }
)
TOLERANCE = 1e-5  # share of a dim's range up to which two numbers are equal


def is_counter(path: str) -> bool:
    """Whether a path inside a step, such as "observation/frame_index", ends in such a name."""
    name = path.rpartition("/")[2]
    return name in COUNTERS or name.rpartition(".")[2] in COUNTERS


def ends_of_episodes(columns: Mapping[str, np.ndarray], ends: np.ndarray) -> dict[str, str]:
    """{column: the column whose last step it repeats} of columns that show an episode's end.

    columns: {name: [N, D]} of numbers. ends: [E], the step after the last one of each episode.
    Such a column is constant in every episode, differs between episodes, and all of its dims equal
    dims of other columns in the last step. Of fewer than 3 episodes nothing is concluded.
    """
    if len(ends) < 3:
        return {}
    starts = np.concatenate([[0], ends[:-1]])
    found = {}
    for key, x in columns.items():
        span = np.ptp(x, axis=0)  # [D]
        inside = np.maximum.reduceat(x, starts) - np.minimum.reduceat(x, starts)  # [E, D]
        if not (span > 0).any() or (inside > TOLERANCE * span).any():
            continue
        moving = np.flatnonzero(span > 0)
        shown = np.zeros(len(moving), bool)
        for name, y in columns.items():
            # What never changes within an episode has no future to show.
            changes = np.abs(y[ends - 1] - y[starts]).max(0) > TOLERANCE * np.ptp(y, axis=0)
            distance = np.abs(x[starts][:, moving, None] - y[ends - 1][:, None, :])  # [E, d, D']
            equal = (distance <= TOLERANCE * span[moving, None]).all(0) & changes  # [d, D']
            if equal.any():
                found.setdefault(key, name)
            shown |= equal.any(1)
        if not shown.all():
            found.pop(key, None)
    return found
