"""What `dpjax.cpu` gains: a ResNet-18 and its gradient.

    python -m experiments.cpu.run

64 images of 84 px, each row in processes of its own, which take turns; the fastest call
of each, and the page faults of that call. Stop other work meanwhile.
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
TURNS, CALLS = 3, 6


def faults() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def timed(set_up: str) -> dict:
    """ms and faults of the fastest call in this process."""
    SET_UPS[set_up]()
    images = np.random.default_rng(0).normal(size=(64, 84, 84, 3)).astype(np.float32)
    network = resnet.ResNet()
    params = jax.jit(network.init)(jax.random.key(0), images)
    gradient = jax.jit(jax.grad(lambda params: (network.apply(params, images) ** 2).sum()))
    calls = []
    for _ in range(CALLS):
        start, before = time.perf_counter(), faults()
        jax.block_until_ready(gradient(params))
        calls.append(((time.perf_counter() - start) * 1e3, faults() - before))
    ms, missed = min(calls[1:])
    return {"ms": ms, "faults": missed}


def child(set_up: str) -> dict:
    """`timed` in a process of its own."""
    command = [sys.executable, "-m", "experiments.cpu.run", "--task", set_up]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.cpu.run")
    parser.add_argument("--task", help="a set-up: time it in this process, print JSON")
    given = parser.parse_args().task
    if given:
        print(json.dumps(timed(given)))
        return 0
    turns = [{name: child(name) for name in SET_UPS} for _ in range(TURNS)]
    rows = {}
    print("| process | ms | page faults |\n|---|---|---|")
    for name in SET_UPS:
        calls = [turn[name] for turn in turns]
        ms = [call["ms"] for call in calls]
        found = {"ms": float(np.median(ms)), "ms_spread": [min(ms), max(ms)]}
        found["faults"] = int(np.median([call["faults"] for call in calls]))
        rows[name] = found
        print(f"| {name} | {found['ms']:.0f} | {found['faults']:,} |")
    result = {"rows": rows, **provenance.provenance()}
    (HERE / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    errors.run(main)
