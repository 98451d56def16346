"""Windows of Tp steps over every episode, edges repeated (Chi et al. 2023, appendix).

An episode of L steps has L + before + after - Tp + 1 windows: the first starts `before` steps
before the episode, the last ends `after` steps behind it, and what lies outside repeats the
first or the last step. With before = To - 1 and after = Ta - 1 the policy is trained on every
state that it can meet, the very first and the very last included.
"""

import logging

import numpy as np

from dpjax.core.errors import UserError

log = logging.getLogger("dpjax")


def window_indices(
    ends: np.ndarray, horizon: int, before: int, after: int, *, source: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The steps of data in each window, and which of them are real.

    An episode that is too short for one window still gives one, with its edges repeated.

    Args:
        ends: [E], the step after the last one of each episode.
        horizon: Tp, steps per window.
        before, after: steps that a window may reach out of its episode; at most Tp - 1 are used.
        source: name of the data set for a warning that counts the short episodes; None for no
            warning.

    Returns:
        indices [W, Tp] int32 into the data's columns, and mask [W, Tp] float32: 1 where the step
        was recorded, 0 where an edge was repeated.

    Raises:
        UserError: without episodes.
    """
    ends = np.asarray(ends, np.int64)
    if len(ends) == 0:
        raise UserError("0 windows from 0 episodes: the data set is empty.", argument="ends")
    # A window that reaches out by Tp steps or more would hold no step of its episode.
    before = min(max(before, 0), horizon - 1)
    after = min(max(after, 0), horizon - 1)

    # How many windows each episode has.
    lengths = np.diff(ends, prepend=0)  # [E]
    starts = ends - lengths
    fitting = lengths + before + after - horizon + 1  # windows per episode; below 1: too short
    counts = np.maximum(fitting, 1)
    if source is not None:
        _warn_of_short(lengths, fitting, source)

    # Windows of one episode are consecutive, so the k-th window's place within its episode is k
    # minus the number of windows of all earlier episodes.
    episode = np.repeat(np.arange(len(ends)), counts)  # [W]
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    first = starts[episode] - before + place
    steps = first[:, None] + np.arange(horizon)  # [W, Tp], may lie outside the episode

    # Clipping to the episode repeats its edges; a step that was moved is not a recorded one.
    low = starts[episode][:, None]
    high = ends[episode][:, None] - 1
    indices = np.clip(steps, low, high)
    return indices.astype(np.int32), (indices == steps).astype(np.float32)


def _warn_of_short(lengths: np.ndarray, fitting: np.ndarray, source: str) -> None:
    """Logs how many episodes are too short for one window, and the first five of them."""
    short = np.flatnonzero(fitting < 1)
    if not len(short):
        return
    names = ", ".join(map(str, short[:5])) + (", …" if len(short) > 5 else "")
    log.warning(
        "%s: %d of %d episodes are too short for one window (the shortest has %d steps) and are "
        "padded: episode %s",
        source, len(short), len(lengths), lengths.min(), names,
    )  # fmt: skip
