"""Windows of Tp steps over every episode, edges repeated (Chi et al. 2023, appendix).

An episode of L steps gives L + before + after - Tp + 1 windows: the first starts
`before` steps before the episode, the last ends `after` steps behind it, and what
lies outside repeats the first or the last step. With before = To - 1 and
after = Ta - 1 the policy is trained on every state that it can meet, the very first
and the very last too.
"""

import numpy as np

from dpjax.core.errors import UserError


def window_rows(
    ends: np.ndarray, horizon: int, before: int, after: int
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Rows [W, Tp] int32 of all windows, their mask [W, Tp] float32, and lines to say.

    ends: [E] the row after the last one of each episode.
    before, after: steps a window may reach out of its episode, at most Tp - 1.
    The mask is 1 where the step was recorded, 0 where an edge was repeated. An episode
    too short for one window gives one all the same, padded; it is counted in a line.
    """
    ends = np.asarray(ends, np.int64)
    if len(ends) == 0:
        raise UserError("0 windows from 0 episodes: the data set is empty.")
    before, after = (min(max(n, 0), horizon - 1) for n in (before, after))
    lengths = np.diff(ends, prepend=0)
    starts = ends - lengths
    room = lengths + before + after - horizon + 1
    counts = np.maximum(room, 1)

    episode = np.repeat(np.arange(len(ends)), counts)  # [W]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    first = starts[episode] - before + within
    steps = first[:, None] + np.arange(horizon)  # [W, Tp], may lie outside
    low, high = starts[episode][:, None], ends[episode][:, None] - 1
    rows = np.clip(steps, low, high)
    return rows.astype(np.int32), (rows == steps).astype(np.float32), _say(lengths, room)


def _say(lengths, room) -> list[str]:
    short = np.flatnonzero(room < 1)
    if not len(short):
        return []
    named = ", ".join(map(str, short[:5])) + (", …" if len(short) > 5 else "")
    return [
        f"{len(short)} of {len(lengths)} episodes are too short for one window "
        f"(the shortest has {lengths.min()} steps) and are padded: episode {named}"
    ]
