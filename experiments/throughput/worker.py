"""The process of one side: prepares a case, then times calls of it on request.

It reads one line of JSON per request from stdin and answers with one line on stdout. So two
libraries that cannot be installed together take turns on an otherwise idle machine. Imports
neither of them.
"""

from collections.abc import Callable
import json
import os
import resource
import sys
import time


def host_peak() -> int:
    """The largest memory of this process so far, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def serve(
    prepare: Callable[[dict], tuple[Callable[[], None], dict]],
    peak: Callable[[], int] = host_peak,
) -> None:
    """Answers requests until "end" or the end of stdin.

    The first request is the case; the answer has its facts and the seconds of the first call.
    Each further request is a number of calls; the answer is a list of their milliseconds. At the
    end the answer is the largest memory in use.

    prepare: case -> (call, facts). A call returns when its work is done.
    peak: bytes in use at most, on the accelerator if there is one.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    case = json.loads(sys.stdin.readline())
    start = time.perf_counter()
    call, facts = prepare(case)
    built = time.perf_counter()
    call()
    first = time.perf_counter() - built
    print(json.dumps({**facts, "build_s": built - start, "first_s": first}), file=answers)
    for line in iter(sys.stdin.readline, ""):
        if line.strip() == "end":
            break
        milliseconds = []
        for _ in range(int(line)):
            start = time.perf_counter()
            call()
            milliseconds.append((time.perf_counter() - start) * 1e3)
        print(json.dumps(milliseconds), file=answers)
    print(json.dumps({"peak_mb": peak() / 2**20}), file=answers)
