"""Errors for the user: a message of one line, and the exit code of the command.

The line says what was given, what is allowed, and where to change it. A mistake that the user
can correct raises `UserError`. Every other exception is a bug of dpjax and keeps its traceback.
"""

from collections.abc import Callable, Iterable, Mapping
import difflib
import os
import sys
from typing import NoReturn, TypeVar

T = TypeVar("T")


class UserError(ValueError):
    """An error that the user can correct. Its message is one line.

    argument: the name of the argument that is wrong, so that a caller can say which config key
        or command-line option it came from (`dpjax.config.checks`).
    """

    def __init__(self, message: str, *, argument: str | None = None):
        super().__init__(message)
        self.argument = argument


def choices(name: str, allowed: Iterable[str]) -> str:
    """The end of an error message about an unknown name: the closest match, then all names."""
    allowed = sorted(allowed)
    # At most one hint: a list of guesses would only repeat the list that follows.
    near = difflib.get_close_matches(str(name), allowed, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}choose one of {', '.join(allowed) or '(there are none)'}"


def choose(table: Mapping[str, T], name: str, argument: str) -> T:
    """Returns table[name]; raises UserError with the closest match if the name is unknown."""
    if name not in table:
        raise UserError(
            f"{argument}={name!r} is unknown; {choices(name, table)}.", argument=argument
        )
    return table[name]


def listed_ranges(text: str, count: int, argument: str) -> list[int]:
    """The numbers of "0-4,7": [0, 1, 2, 3, 4, 7], ascending.

    count: the numbers must be below it. argument: its name, for the error message.

    Raises UserError for anything else.
    """
    numbers: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal()) or int(first) > int(last):
            raise UserError(
                f"{argument}={text}: expected numbers and ranges such as 0-4,7.", argument=argument
            )
        # Compared before the range is made: 0-99999999999 must not fill the memory.
        if int(last) >= count:
            raise UserError(
                f"{argument}={text}: {last} is beyond the last number, {count - 1}.",
                argument=argument,
            )
        numbers.update(range(int(first), int(last) + 1))
    return sorted(numbers)


def run(main: Callable[[], int | None]) -> NoReturn:
    """Runs a command's main function and exits with its code.

    A UserError becomes one line on stderr and exit code 2; with `--debug` on the command line
    its traceback is shown too.
    """
    debug = "--debug" in sys.argv
    if debug:
        # The command has its own parser, which does not know this option.
        sys.argv.remove("--debug")
    try:
        # A main function returns its exit code, or None for success.
        sys.exit(main() or 0)
    except UserError as error:
        if debug:
            raise
        # Messages from other libraries can contain line breaks: join their lines.
        print("dpjax: error: " + " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)  # the code that argparse uses for wrong arguments
    except KeyboardInterrupt:
        # 130 is what shells report after Ctrl-C: 128 + 2, the number of SIGINT.
        print("dpjax: stopped by the keyboard", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe has closed it, as in `… | head`. Python flushes stdout once more
        # at exit, which would fail again, so stdout is redirected to /dev/null.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # as a shell reports SIGPIPE: 128 + 13
