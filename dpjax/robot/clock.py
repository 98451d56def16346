"""The clock of the loop: a real one, and one for tests that waits without waiting."""

from collections.abc import Callable
import time
from typing import NamedTuple

# A sleeping process wakes up late by the time slice of the scheduler. The last millisecond before
# a deadline is therefore spent in a loop.
SPIN = 1e-3


class Clock(NamedTuple):
    """now: () -> seconds. until: (time) -> None, returns at that time, or at once if it is over."""

    now: Callable[[], float]
    until: Callable[[float], None]


def real() -> Clock:
    """The machine's monotonic clock."""

    def until(deadline: float) -> None:
        # Sleep for most of the time; then look at the clock again and again.
        rest = deadline - time.monotonic() - SPIN
        if rest > 0:
            time.sleep(rest)
        while time.monotonic() < deadline:
            pass

    return Clock(time.monotonic, until)


class FakeTime:
    """A time that passes only when somebody waits for it. `now` may also be set directly."""

    def __init__(self, start: float = 0.0):
        self.now = start

    def until(self, deadline: float) -> None:
        """Moves the time forward to the deadline, never back."""
        self.now = max(self.now, deadline)

    def clock(self) -> Clock:
        """This time as a `Clock`."""
        return Clock(lambda: self.now, self.until)
