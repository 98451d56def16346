"""A person beside the robot: keys of a terminal, or any function, as commands of the loop."""

from collections.abc import Callable, Iterator
import contextlib
import os
import select
import sys
import termios
import tty

from dpjax.core.errors import UserError
from dpjax.robot.base import Command

# What the keys mean; any other key is ignored. Shown by `HELP`.
KEYS = {
    " ": Command.PAUSE,
    "c": Command.CORRECT,
    "r": Command.RUN,
    "s": Command.SUCCESS,
    "f": Command.FAILURE,
    "d": Command.DROP,
    "q": Command.STOP,
}
HELP = "space pause · r run · c correct · s success · f failure · d drop · q stop"


def after(state: Command, keys: str) -> Command:
    """The command after some keys were pressed, in order.

    Space pauses a running policy, and goes on after a pause. A key that ends the episode wins over
    those after it. From a correction the way back is a pause.
    """
    for key in keys:
        command = KEYS.get(key)
        if command is None:
            continue
        if command in (Command.SUCCESS, Command.FAILURE, Command.DROP, Command.STOP):
            return command
        if command is Command.PAUSE and state is Command.PAUSE:
            command = Command.RUN
        if command is Command.RUN and state is Command.CORRECT:
            # Whoever lets go of the robot looks first, and then starts the policy.
            command = Command.PAUSE
        state = command
    return state


@contextlib.contextmanager
def terminal(first: Command = Command.RUN) -> Iterator[Callable[[], Command]]:
    """Commands from the keys of the terminal, which works over ssh too.

    Yields a function for `drive(operator=…)`. The terminal is put back at the end.

    Raises UserError if stdin is not a terminal.
    """
    if not sys.stdin.isatty():
        raise UserError("keys are read from a terminal, but stdin is not one.")
    # The terminal's settings are put back at the end, even after an exception.
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    state = first

    def command() -> Command:
        nonlocal state
        # Only what is there already: the loop must not wait for a key.
        while select.select([descriptor], [], [], 0)[0]:
            state = after(state, os.read(descriptor, 64).decode(errors="ignore"))
        return state

    try:
        tty.setcbreak(descriptor)  # single keys, without Enter; Ctrl-C still interrupts
        yield command
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
