"""What `dpjax.core.runtime` gains: a ResNet-18 and its gradient.

    python -m experiments.cpu.run

64 images of 84 px. Each row is measured in processes of its own, which take turns: the fastest
call of each process, and the page faults of that call. Stop other work meanwhile.
"""

import argparse
import json
from pathlib import Path
import resource
import subprocess
import sys
import time

import jax
import numpy as np

from dpjax.core import errors, runtime
from dpjax.evaluation import provenance
from dpjax.nets import resnet

HERE = Path(__file__).parent
SET_UPS = {
    "as it comes": lambda: None,
    "memory kept": runtime.keep_memory,
    "libraries chosen": runtime.choose_libraries,
    "both": runtime.set_up,
}
TURNS = 3  # processes per set-up
CALLS = 6  # per process; the first one compiles


def page_faults() -> int:
    """Page faults of this process so far that needed no disk."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def timed(set_up: str) -> dict:
    """Milliseconds and page faults of the fastest call in this process."""
    SET_UPS[set_up]()
    images = np.random.default_rng(0).normal(size=(64, 84, 84, 3)).astype(np.float32)
    network = resnet.ResNet()
    params = jax.jit(network.init)(jax.random.key(0), images)
    gradient = jax.jit(jax.grad(lambda params: (network.apply(params, images) ** 2).sum()))
    calls = []
    for _ in range(CALLS):
        start = time.perf_counter()
        before = page_faults()
        jax.block_until_ready(gradient(params))
        calls.append(((time.perf_counter() - start) * 1e3, page_faults() - before))
    ms, faults = min(calls[1:])
    return {"ms": ms, "faults": faults}


def child(set_up: str) -> dict:
    """`timed` in a new process."""
    command = [sys.executable, "-m", "experiments.cpu.run", "--task", set_up]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.cpu.run")
    parser.add_argument("--task", help="a set-up: time it in this process, print JSON")
    task = parser.parse_args().task
    if task:
        print(json.dumps(timed(task)))
        return 0
    turns = [{name: child(name) for name in SET_UPS} for _ in range(TURNS)]
    rows = {}
    print("| process | ms | page faults |\n|---|---|---|")
    for name in SET_UPS:
        calls = [turn[name] for turn in turns]
        ms = [call["ms"] for call in calls]
        faults = int(np.median([call["faults"] for call in calls]))
        row = {"ms": float(np.median(ms)), "ms_spread": [min(ms), max(ms)], "faults": faults}
        rows[name] = row
        print(f"| {name} | {row['ms']:.0f} | {row['faults']:,} |")
    result = {"rows": rows, **provenance.provenance()}
    (HERE / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    errors.run(main)
