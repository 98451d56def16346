"""The progress of a training: a clock of steps and seconds, and the progress bar."""

import logging
from pathlib import Path
import sys
from typing import NamedTuple

from tqdm import tqdm

log = logging.getLogger("dpjax")


class Clock(NamedTuple):
    """The steps of a training, and the seconds that they took.

    step: the number of optimizer steps that are done.
    seconds: the duration of the training, over all starts of the run.
    compile_seconds: the duration of the first call of this start, which compiles; None before it.
    timed_seconds: the duration of all later calls of this start.
    waited_seconds: the part of timed_seconds spent waiting for input.
    """

    step: int
    seconds: float
    compile_seconds: float | None = None
    timed_seconds: float = 0.0
    waited_seconds: float = 0.0

    def after_call(self, steps: int, seconds: float, waited: float) -> "Clock":
        """The clock after a call that took so many steps and seconds.

        waited: the seconds of these spent waiting for input.
        """
        clock = self._replace(step=self.step + steps, seconds=self.seconds + seconds)
        # The first call compiles, so it does not count for the speed.
        if self.compile_seconds is None:
            return clock._replace(compile_seconds=seconds)
        return clock._replace(
            timed_seconds=self.timed_seconds + seconds,
            waited_seconds=self.waited_seconds + waited,
        )


class Bar:
    """A progress bar whose speed and remaining time do not count the compilation."""

    def __init__(self, first: int, total: int, *, hidden: bool):
        """first: the steps done before this start. hidden: True in all processes but the first."""
        # The speed that tqdm shows is right from the second call on (`update`).
        self._is_compiling = True
        self._bar = tqdm(
            total=total,
            initial=first,
            unit="step",
            desc="compiling",
            # Each refresh is a line in a log file, so there are fewer of them.
            mininterval=0.5 if sys.stderr.isatty() else 30.0,
            disable=hidden,
        )

    def show(self, **values: str) -> None:
        """Shows values beside the bar, such as the loss."""
        self._bar.set_postfix(values)

    def update(self, steps: int) -> None:
        """Moves the bar by the steps of a call."""
        # Any call but the first.
        if not self._is_compiling:
            self._bar.update(steps)
            return
        # The first call, which compiled. tqdm's speed is (n - initial) / (now - start_t). With both
        # set to the present, the speed excludes this call.
        self._is_compiling = False
        if not self._bar.disable:
            self._bar.n += steps
            self._bar.initial = self._bar.last_print_n = self._bar.n
            self._bar.start_t = self._bar.last_print_t = self._bar._time()
            self._bar.set_description("train")  # "compiling" until now

    def close(self) -> None:
        """Ends the bar, which stays visible."""
        self._bar.close()


def log_times(clock: Clock) -> None:
    """Logs how long the training took; logs nothing if this start did not train."""
    # timed_seconds is 0 after a single call.
    if clock.compile_seconds is not None:
        log.info(
            "trained for %.1f s, the first call (compiled) took %.1f s; waited %.2f %% of the "
            "time for input",
            clock.seconds,
            clock.compile_seconds,
            100 * clock.waited_seconds / max(clock.timed_seconds, 1e-9),
        )


def log_finished(workdir: Path, step: int, total: int) -> None:
    """Logs that a run has nothing left to do, and how its weights can be trained further."""
    log.info(
        "%s is finished: step %d of %d. To train its weights further: "
        "--config.train.init_from=%s and another --workdir",
        workdir,
        step,
        total,
        workdir,
    )
