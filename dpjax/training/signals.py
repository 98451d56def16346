"""SIGTERM and SIGINT are remembered until the run is at a place where it can be saved."""

import signal


class Stopped(Exception):
    """A signal arrived during something long."""


class Signals:
    """The first signal is remembered for the training loop; the second one kills the process.

    Nothing is caught before `listen`: until the first step is done there is nothing to save, and a
    handler in Python would have to wait for the compilation to end.

    received: the number of the first signal, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict = {}  # the handlers that were there before `listen`

    def listen(self) -> None:
        """From here on, signals wait for the loop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._receive)

    def _receive(self, number: int, _) -> None:
        # Only remembered: a handler runs between two instructions of the training loop.
        self.received = number
        # The default handlers, for the second signal.
        for name in self._before:
            signal.signal(name, signal.SIG_DFL)

    def stop_if_received(self) -> None:
        """Raises Stopped if a signal was received; for loops inside the training loop."""
        if self.received:
            raise Stopped

    def close(self) -> None:
        """Puts the earlier handlers back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
