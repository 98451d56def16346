"""Ways to execute chunks under a delay, each as a wrapper around `sample_actions`.

All of them run in the same rollout. A wrapper may move the steps of a chunk, so that the
controller, which always executes the step that belongs to the present, executes another one.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

SampleActions = Callable[..., np.ndarray]


class Method(NamedTuple):
    """How a row of the table is executed.

    agree: config.sampler.agree. wrap: (sample_actions, To, d) -> sample_actions, or None.
    waits: the robot stands still for d steps before each chunk but the first.
    """

    agree: str = "none"
    wrap: Callable[[SampleActions, int, int], SampleActions] | None = None
    waits: bool = False


def not_aligned(sample_actions: SampleActions, observed: int, delay: int) -> SampleActions:
    """A chunk that is d steps late is executed from its beginning on, as if it were in time."""

    def sample(keys, obs, previous=None, committed=None):
        chunk = np.asarray(sample_actions(keys, obs, previous, committed))
        # The step that belongs to the present is put where the controller looks d steps later.
        late = np.concatenate([np.repeat(chunk[:, :1], delay, 1), chunk], 1)[:, : chunk.shape[1]]
        # The first chunk of an episode is waited for.
        is_late = np.zeros(len(chunk), bool) if committed is None else np.asarray(committed) > 0
        return np.where(is_late[:, None, None], late, chunk)

    return sample


def waiting(sample_actions: SampleActions, observed: int, delay: int) -> SampleActions:
    """The robot holds its last target for d steps, and then executes the chunk.

    For a controller without a delay that executes d actions more per chunk.
    """

    def sample(keys, obs, previous=None, committed=None):
        chunk = np.asarray(sample_actions(keys, obs, None))
        longer = np.concatenate([chunk, np.repeat(chunk[:, -1:], delay, 1)], 1)
        if previous is None or observed < 2:
            return longer
        hold = np.asarray(previous)[:, observed - 2 : observed - 1]  # what was executed last
        first = observed - 1
        waits = np.concatenate(
            [chunk[:, :first], np.repeat(hold, delay, 1), chunk[:, first:]], axis=1
        )
        # A new episode has executed nothing yet, and does not wait for its first chunk.
        return np.where(np.isfinite(hold).all(axis=(1, 2))[:, None, None], waits, longer)

    return sample


METHODS = {
    "aligned": Method(),
    "not aligned": Method(wrap=not_aligned),
    "waiting": Method(wrap=waiting, waits=True),
    "blend": Method(agree="blend"),
    "line": Method(agree="line"),
    "rtc": Method(agree="rtc"),
}
DELAYS = (0, 1, 2, 4)
# The cells in the order of their importance: each run measures those that are missing. Without a
# delay the first three methods are the same.
CELLS = [
    ("aligned", 4),
    ("not aligned", 4),
    ("aligned", 0),
    ("waiting", 4),
    *((method, 4) for method in ("blend", "line", "rtc")),
    *((method, delay) for delay in (1, 2) for method in ("aligned", "not aligned", "waiting")),
    *((method, delay) for delay in (0, 2, 1) for method in ("blend", "line", "rtc")),
]
