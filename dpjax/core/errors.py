"""Errors that a person reads: one line, and the exit code of the command.

The line says what was given, what is allowed, and where to change it. Anything
that is the user's to mend raises `UserError`; anything else is a bug of dpjax and
keeps its traceback.
"""

import difflib
import os
import sys
from typing import Callable, Iterable


class UserError(ValueError):
    """What was given, what is allowed, where to change it: one line.

    argument: the name of the argument that is wrong, so that a layer above can say which
        config key or command-line option it came from (`dpjax.config.checks`).
    """

    def __init__(self, message: str, *, argument: str | None = None):
        super().__init__(message)
        self.argument = argument


def choices(given: str, allowed: Iterable[str]) -> str:
    """The tail of an error about a name: the nearest spelling, then all of them."""
    allowed = sorted(allowed)
    near = difflib.get_close_matches(str(given), allowed, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}choose one of {', '.join(allowed) or '(there are none)'}"


def choose(table: dict, name: str, where: str):
    """table[name], or one line with the nearest name."""
    if name not in table:
        raise UserError(f"{where}={name!r} is unknown; {choices(name, table)}.")
    return table[name]


def run(main: Callable[[], int | None]) -> None:
    """Runs a command's main; a UserError becomes one line on stderr and exit code 2.

    With `--debug` among the arguments the traceback is shown too.
    """
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        sys.exit(main() or 0)
    except UserError as error:
        if debug:
            raise
        print("dpjax: error: " + " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("dpjax: stopped by the keyboard", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # `… | head` has read enough. Python flushes stdout once more at exit: into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # as a shell counts SIGPIPE: 128 + 13
