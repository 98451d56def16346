"""One side of the comparison: prepares a case, then times calls of it when told to.

A line of JSON in, a line of JSON out, over stdin and stdout: so that two libraries which
cannot share an environment take turns on an otherwise idle machine. Imports neither.
"""

from collections.abc import Callable
import json
import os
import resource
import sys
import time


def host_peak() -> int:
    """The most memory that this process had, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def serve(
    prepare: Callable[[dict], tuple[Callable[[], None], dict]],
    peak: Callable[[], int] = host_peak,
) -> None:
    """prepare: case -> (call, facts); a call has finished its work when it returns.

    Says the facts and the first call's seconds; then, for every number n that comes, the
    milliseconds of n calls; and at the end of stdin the most memory that was in use, of
    `peak`: the accelerator's where there is one.
    """
    say = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    case = json.loads(sys.stdin.readline())
    start = time.perf_counter()
    call, facts = prepare(case)
    built = time.perf_counter()
    call()
    first = time.perf_counter() - built
    print(json.dumps({**facts, "build_s": built - start, "first_s": first}), file=say)
    for line in iter(sys.stdin.readline, ""):
        if line.strip() == "end":
            break
        took = []
        for _ in range(int(line)):
            start = time.perf_counter()
            call()
            took.append((time.perf_counter() - start) * 1e3)
        print(json.dumps(took), file=say)
    print(json.dumps({"peak_mb": peak() / 2**20}), file=say)
