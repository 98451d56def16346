"""How far a training is: its clock, and the bar that a person watches."""

import logging
import sys
from typing import NamedTuple

from tqdm import tqdm

log = logging.getLogger("dpjax")


class Clock(NamedTuple):
    """Steps and seconds of a training.

    step: optimizer steps that are done.
    seconds: of training, of all starts together.
    compile_seconds: of this start's first call, most of which is compilation; None before it.
    timed_seconds: of the later calls. waited_seconds: those of them spent waiting for input.
    """

    step: int
    seconds: float
    compile_seconds: float | None = None
    timed_seconds: float = 0.0
    waited_seconds: float = 0.0

    def after_call(self, steps: int, seconds: float, waited: float) -> "Clock":
        """The clock after a call of so many steps and seconds."""
        # The first call compiled, so it says nothing about the speed.
        clock = self._replace(step=self.step + steps, seconds=self.seconds + seconds)
        if self.compile_seconds is None:
            return clock._replace(compile_seconds=seconds)
        return clock._replace(
            timed_seconds=self.timed_seconds + seconds,
            waited_seconds=self.waited_seconds + waited,
        )


class Bar:
    """A progress bar in steps, whose speed and remaining time leave the compilation out."""

    def __init__(self, first: int, total: int, *, hidden: bool):
        """first: steps done before this start. hidden: for all processes but the first."""
        self._is_compiling = True
        self._bar = tqdm(
            total=total,
            initial=first,
            unit="step",
            desc="compiling",
            # A log file wants fewer lines than a terminal.
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
            disable=hidden,
        )

    def show(self, **values: str) -> None:
        """Shows values beside the bar, such as the loss."""
        self._bar.set_postfix(values)

    def update(self, steps: int) -> None:
        """Counts the steps of a call."""
        if not self._is_compiling:
            self._bar.update(steps)
            return
        # The first call compiled. tqdm's speed is (n - initial) / (now - start_t): with both set
        # anew its estimate of the remaining time is that of the calls to come.
        self._is_compiling = False
        if not self._bar.disable:
            self._bar.n += steps
            self._bar.initial = self._bar.last_print_n = self._bar.n
            self._bar.start_t = self._bar.last_print_t = self._bar._time()
            self._bar.set_description("train")

    def close(self) -> None:
        """Leaves the bar as it is, on a line of its own."""
        self._bar.close()


def log_times(clock: Clock) -> None:
    """One line on where the time of this start went; none if it did not train."""
    if clock.compile_seconds is not None:
        log.info(
            "trained for %.1f s, the first call (compiled) took %.1f s; waited %.2f %% of the "
            "time for input",
            clock.seconds,
            clock.compile_seconds,
            100 * clock.waited_seconds / max(clock.timed_seconds, 1e-9),
        )
