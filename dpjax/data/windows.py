"""Windows of Tp steps over every episode, padded at both ends (Chi et al. 2023, appendix).

An episode of L steps has L + before + after - Tp + 1 windows. The first window starts `before`
steps before the episode and the last one ends `after` steps behind it. Steps outside the episode
are padded with its first or last step. With before = To - 1 and after = Ta - 1 the policy is
trained on every state that it meets in an episode, from the first to the last.
"""

import logging

import numpy as np

from dpjax.core.errors import UserError

log = logging.getLogger("dpjax")


def window_indices(
    ends: np.ndarray, horizon: int, before: int, after: int, *, source: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The steps of each window, and which of them were recorded rather than padded.

    An episode that is too short for one window still gives one, which is padded.

    Args:
        ends: [E], the step after the last one of each episode.
        horizon: Tp, steps per window.
        before, after: the number of steps by which a window may start before its episode or end
            behind it; at most Tp - 1 are used.
        source: name of the data set in the warning about short episodes; None: no warning.

    Returns:
        indices [W, Tp] int32, positions in the data's columns, and mask [W, Tp] float32: 1 for a
        recorded step, 0 for padding.

    Raises:
        UserError: without episodes.
    """
    ends = np.asarray(ends, np.int64)
    if len(ends) == 0:
        raise UserError("0 windows from 0 episodes: the data set is empty.", argument="ends")
    # A window that starts Tp or more steps before its episode would hold no step of it.
    before = min(max(before, 0), horizon - 1)
    after = min(max(after, 0), horizon - 1)

    # Windows per episode, [E].
    lengths = np.diff(ends, prepend=0)  # [E]
    starts = ends - lengths
    fitting = lengths + before + after - horizon + 1  # windows per episode; below 1: too short
    counts = np.maximum(fitting, 1)
    if source is not None:
        _warn_of_short(lengths, fitting, source)

    # Windows are ordered by episode. So the place of window k within its episode is k minus the
    # number of windows of all earlier episodes.
    episode = np.repeat(np.arange(len(ends)), counts)  # [W]
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    first = starts[episode] - before + place
    steps = first[:, None] + np.arange(horizon)  # [W, Tp], may lie outside the episode

    # Clipping to the episode pads with its first and last step. Where clipping changed an index,
    # the step is padding and not a recorded one.
    low = starts[episode][:, None]
    high = ends[episode][:, None] - 1
    indices = np.clip(steps, low, high)
    return indices.astype(np.int32), (indices == steps).astype(np.float32)


def _warn_of_short(lengths: np.ndarray, fitting: np.ndarray, source: str) -> None:
    """Logs how many episodes are too short for one window, and lists the first five."""
    short = np.flatnonzero(fitting < 1)
    if not len(short):
        return
    names = ", ".join(map(str, short[:5])) + (", …" if len(short) > 5 else "")
    log.warning(
        "%s: %d of %d episodes are too short for one window (the shortest has %d steps) and are "
        "padded: episode %s",
        source, len(short), len(lengths), lengths.min(), names,
    )  # fmt: skip
