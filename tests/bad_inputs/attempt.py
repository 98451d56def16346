"""Imports checkpoints one after the other with little memory; prints a line of JSON per path.

python attempt.py PATH …    {"path", "error", "message", "written", "seconds"}
"""

import json
from pathlib import Path
import resource
import sys
import time

import jax

from dpjax import import_weights
from dpjax.core.errors import UserError

ROOM = 2**30  # bytes beyond what the process has mapped when it starts


def attempt(path: Path) -> dict:
    """What `dpjax.import_weights` does with a path."""
    out = path.parent / "run"
    start = time.perf_counter()
    try:
        import_weights.main([str(path), "--run", str(out)])
        error = message = ""
    except UserError as raised:
        error, message = "UserError", str(raised)
    except BaseException as raised:  # the test fails and shows which one
        error, message = type(raised).__name__, str(raised)[:300]
    written = [item.name for item in out.parent.glob("*run*")]
    seconds = time.perf_counter() - start
    return dict(path=str(path), error=error, message=message, written=written, seconds=seconds)


if __name__ == "__main__":
    jax.jit(lambda x: x + 1)(1.0)  # starts XLA's threads before memory is limited
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (mapped + ROOM, hard))
    for argument in sys.argv[1:]:
        print("RESULT " + json.dumps(attempt(Path(argument))), flush=True)
