"""Imports each of the given inputs, in a process with little memory; a line of JSON each.

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
    """What the command does with an input."""
    out, start = path.parent / "run", time.perf_counter()
    try:
        import_weights.main([str(path), "--run", str(out)])
        error = message = ""
    except UserError as found:
        error, message = "UserError", str(found)
    except BaseException as found:  # whatever else it was, the test says which
        error, message = type(found).__name__, str(found)[:300]
    written = [item.name for item in out.parent.glob("*run*")]
    seconds = time.perf_counter() - start
    return dict(path=str(path), error=error, message=message, written=written, seconds=seconds)


if __name__ == "__main__":
    jax.jit(lambda x: x + 1)(1.0)  # XLA's threads are there before the limit is
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (mapped + ROOM, hard))
    for given in sys.argv[1:]:
        print("RESULT " + json.dumps(attempt(Path(given))), flush=True)
