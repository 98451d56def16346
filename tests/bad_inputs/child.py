"""Runs a reader in a child process with limits on its memory and time."""

import os
from pathlib import Path
import resource
from typing import NamedTuple

from support.tiny import fork

SPARE = 2**32  # bytes of address space beyond what the imports take; pyarrow reserves 2^30 each
SECONDS = 20  # of processor time


class Outcome(NamedTuple):
    """code: 0 for success, 2 for a UserError. text: its line, or a traceback.

    grown: bytes by which the peak of resident memory grew.
    """

    code: int
    text: str
    grown: int


def convert(arguments) -> None:
    """`python -m dpjax.convert` with these arguments."""
    from dpjax.convert import __main__ as command

    command.main(list(map(str, arguments)))


def read(directory, features) -> None:
    """Reads an RLDS data set."""
    from dpjax.data import rlds

    rlds.read(directory, features=features)


def run(function, *arguments, folder: Path) -> Outcome:
    """The outcome of function(*arguments) in a child, which reports it in a file in `folder`."""
    report = folder / "report"
    process = fork.Process(target=_limited, args=(function, arguments, str(report)))
    process.start()
    process.join(120)
    if process.exitcode is None:
        process.kill()
        raise AssertionError("still running after 120 s")
    if not report.exists():
        return Outcome(process.exitcode, f"died with code {process.exitcode}", 0)
    grown, _, text = report.read_text().partition("\n")
    report.unlink()
    return Outcome(process.exitcode, text, int(grown))


def _limited(function, arguments, report) -> None:
    import traceback

    import dpjax.convert  # noqa: F401  its memory is not the reader's
    from dpjax.core.errors import UserError

    _silence()
    status = Path("/proc/self/statm").read_text().split()
    size = int(status[0]) * resource.getpagesize() + SPARE
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code, text = 0, ""
    try:
        function(*arguments)
    except UserError as error:
        code, text = 2, str(error)
    except BaseException:
        code, text = 1, traceback.format_exc()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    Path(report).write_text(f"{grown}\n{text}")
    os._exit(code)


def _silence() -> None:
    """Sends stdout and stderr to nowhere, also what libraries in C print."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
