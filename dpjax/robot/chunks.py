"""The chunk that a robot executes, on the grid of control steps.

Step k of the loop sends the action that is to be reached at its time, target k. A chunk whose
observation belongs to target s holds the action of target k in its own step

    j = To - 1 + k - s                                                        (1)

wherever it is, so a chunk that comes late is joined at its own step and not at its first one.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np


class Chunk(NamedTuple):
    """A chunk under execution.

    actions: [Tp, Da]. observed: To. step: s, the target that its observation belongs to.
    number: which chunk of the episode it is, from 0.
    """

    actions: np.ndarray
    observed: int
    step: int
    number: int

    def index(self, target: int) -> int:
        """Equation (1): the chunk's own step for a target; may lie outside the chunk."""
        return self.observed - 1 + target - self.step

    @property
    def end(self) -> int:
        """The first target that the chunk does not reach."""
        return self.step + len(self.actions) - (self.observed - 1)

    def action(self, target: int) -> np.ndarray | None:
        """The action [Da] of a target from s on; None beyond the chunk."""
        if target < self.step or target >= self.end:
            return None
        return self.actions[self.index(target)]


def previous(
    chunk: Chunk | None,
    sent: Mapping[int, np.ndarray],
    step: int,
    shape: tuple[int, int],
    observed: int,
) -> np.ndarray | None:
    """The last chunk moved to an observation at target `step`: [Tp, Da]; None if there is none.

    Steps that the last chunk does not reach are NaN. Steps of the past hold what was really sent.

    sent: {target: the action that was sent}. shape: (Tp, Da).
    """
    if chunk is None:
        return None
    # Step j of the result belongs to the same time as step j of the chunk that is asked for.
    moved = np.full(shape, np.nan, np.float32)
    for j in range(shape[0]):
        target = step - (observed - 1) + j
        # What was sent is known for sure: a person, or a limit, may have changed the chunk.
        action = sent.get(target)
        if action is None:
            action = chunk.action(target)
        if action is not None:
            moved[j] = action
    return moved


def committed(moved: np.ndarray | None, observed: int, delay: int) -> int:
    """How many actions from the present on are executed whatever the new chunk says.

    moved: what `previous` returned. delay: d. An action that the last chunk does not have, or that
    was not sent, commits to nothing, and neither do those after it.
    """
    if moved is None:
        return 0
    # A chunk that ends before the delay is over leaves steps in which the robot holds.
    known = np.isfinite(moved[observed - 1 : observed - 1 + delay]).all(axis=1)
    # The number of known actions before the first unknown one.
    return int(np.cumprod(known).sum())
