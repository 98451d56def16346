"""SIGTERM and SIGINT: remembered, until a place where the run can be saved."""

import signal


class Stopped(Exception):
    """A signal arrived while something long was under way."""


class Signals:
    """The first signal is remembered for the loop to see; the second one kills.

    Nothing is caught before `listen`: until the first step is done there is nothing to
    save, and Python's handlers would have to wait for a compilation to end.
    """

    def __init__(self):
        self.received = None
        self._before = {}

    def listen(self) -> None:
        """From here on signals wait for the loop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._receive)

    def _receive(self, number, _):
        self.received = number
        for name in self._before:
            signal.signal(name, signal.SIG_DFL)

    def stop_if_received(self) -> None:
        """Raises Stopped; for loops inside the loop."""
        if self.received:
            raise Stopped

    def close(self) -> None:
        """Puts back what was there before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
