"""The last To observations of a client that does not send all of them.

A policy with To = 2 wants the frame before the newest one too, but a client that executes eight
actions of a chunk sends one frame in eight steps. `History` says where its answer is from:

    given      the message held To steps
    observed   consecutive frames: the client sent each step, or numbered them (`dpjax/step`)
    first      the episode is shorter than To steps; its first frame is repeated, as in training
    repeated   otherwise: the newest frame stands for all, which costs success (docs/serving.md)
"""

import numpy as np

from dpjax.core.errors import UserError

Obs = dict[str, np.ndarray]  # {name: [T, ...]}


class History:
    """Consecutive frames of one episode, the newest last."""

    def __init__(self, observed: int):
        """observed: To."""
        self.observed = observed
        self._frames: Obs = {}  # {name: [n, ...]} with 1 <= n <= To; empty before the first
        self._origin = "first"  # what the history is called as long as it is shorter than To
        self._last_step: int | None = None
        self._was_observe = False  # whether the last frame came by endpoint `observe`

    def add(self, obs: Obs, step: int | None, *, by_observe: bool = False) -> int | None:
        """Adds a frame, T = 1, or the whole history, T = To.

        step: the number of its control step, if the client counts.
        by_observe: the client sends every step, and only this frame without asking for actions.

        Returns how many control steps have passed since the frame before it; None if that is
        unknown, or if there is none. Raises UserError for a frame that is not newer.
        """
        passed = self._passed(step, by_observe)
        # To = 1 makes every frame a whole history.
        num_steps = len(next(iter(obs.values())))
        if num_steps == self.observed:
            self._frames = dict(obs)
            self._origin = "given"
        elif passed == 1:
            # One after the other: the oldest is dropped when there are more than To.
            join = lambda name, x: np.concatenate([self._frames[name], x])[-self.observed :]
            self._frames = {name: join(name, x) for name, x in obs.items()}
            is_full = len(next(iter(self._frames.values()))) == self.observed
            self._origin = "observed" if is_full else self._origin
        else:
            # Steps are missing before this frame: the older ones do not help.
            self._origin = "repeated" if self._frames else "first"
            self._frames = dict(obs)
        self._last_step = step
        self._was_observe = by_observe
        return passed

    def read(self) -> tuple[Obs, str]:
        """({name: [To, ...]}, where it is from); the oldest frame is repeated if there are less."""
        missing = self.observed - len(next(iter(self._frames.values())))
        front = lambda x: np.concatenate([np.repeat(x[:1], missing, axis=0), x])
        return {name: front(x) for name, x in self._frames.items()}, self._origin

    def _passed(self, step: int | None, by_observe: bool) -> int | None:
        """Control steps since the last frame, as far as that can be known."""
        if not self._frames:
            return None
        if step is not None and self._last_step is not None:
            return steps_between(self._last_step, step)
        # A client that calls `observe` at all does so at every step.
        return 1 if by_observe or self._was_observe else None


def steps_between(last: int, step: int) -> int:
    """step - last; raises UserError unless it is positive."""
    if step <= last:
        raise UserError(
            f"stale: dpjax/step {step} is not after {last}, the last one; endpoint reset starts "
            "another episode."
        )
    return step - last
