"""Postpones SIGTERM and SIGINT until the training loop can save the run and stop."""

import signal


class Stopped(Exception):
    """A signal was received; it ends a long evaluation inside the training loop."""


class Signals:
    """Records the first signal, for the training loop to act on; a second one ends the process.

    Before `listen`, signals end the process at once: there is nothing to save before the first
    step, and a Python handler could not run until the compilation is over.

    received: the number of the first signal, or None.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict = {}  # {signal: its handler before `listen`}

    def listen(self) -> None:
        """Installs the handlers: from now on signals are recorded."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._receive)

    def _receive(self, number: int, _) -> None:
        # Only recorded: a handler may run between any two instructions of the training loop, where
        # the state cannot be saved.
        self.received = number
        # With the default handlers a second signal ends the process at once.
        for name in self._before:
            signal.signal(name, signal.SIG_DFL)

    def stop_if_received(self) -> None:
        """Raises Stopped if a signal was received; evaluators call it inside their loops."""
        if self.received:
            raise Stopped

    def close(self) -> None:
        """Restores the handlers that were there before `listen`."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
