"""The policy server in numbers: overhead, many clients, hostile messages.

    python -m experiments.serving.run [--one-step RUN] [--seconds 600] [--messages 1000000]

    overhead_ms   round trip less the time of the policy, one client at batch 1 on loopback
    fairness      the smallest number of answers that a client got, over the median one; 32 clients
                  with 10 control steps per second, in chunk mode
    p99_over_p50  of their requests that sample
    crashes       errors inside of the server, and servers that ended, under mutated messages
    growth_mb     of the server's resident memory under them, and under the 32 clients

Server and clients are processes of one machine. Without --one-step a MeanFlow policy is trained
for a few steps: what it says does not matter here, only how long it takes. Writes results.json
into this folder, or into --out. Everything else on the machine should be at rest.
"""

import argparse
import contextlib
import json
from pathlib import Path
import statistics
import subprocess
import sys
import time
from typing import Any
import urllib.request

import numpy as np
import psutil
from websockets.sync.client import connect

from dpjax.evaluation import provenance
from dpjax.serving import wire
from experiments import collect
from experiments.serving.load import STATE

WARM_MESSAGES = 20_000  # before memory is measured: caches and pools fill up first
WARM_SECONDS = 20


@contextlib.contextmanager
def server(*options: str):
    """Starts `dpjax.serve`; yields (process, URL)."""
    command = [sys.executable, "-m", "dpjax.serve", "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        if not line.startswith("serving"):
            raise SystemExit(f"the server did not start: {line}")
        print(line, end="", flush=True)
        yield process, line.split()[3]
    finally:
        process.terminate()
        process.wait(10)


def resident(process: subprocess.Popen) -> float:
    """Resident memory in MB."""
    return psutil.Process(process.pid).memory_info().rss / 1e6


def metrics(url: str) -> dict[str, float]:
    """The numbers of /metrics."""
    with urllib.request.urlopen(url.replace("ws", "http", 1) + "/metrics") as response:
        lines = response.read().decode().splitlines()
    return {name: float(number) for name, number in map(str.split, lines)}


def overhead(requests: int) -> dict[str, float]:
    """One client of the shipped policy, which asks again as soon as it is answered."""
    message = wire.pack({"state": STATE})
    round_trips, policy = [], []
    with server("--run", "pusht_demo", "--batch", "1") as (_, url):
        with connect(url, compression=None) as websocket:
            websocket.recv()
            for i in range(requests + 100):
                start = time.perf_counter()
                websocket.send(message)
                answer = wire.unpack(websocket.recv(), 1 << 20)
                if i >= 100:
                    round_trips.append(1e3 * (time.perf_counter() - start))
                    policy.append(answer["server_timing"]["policy_ms"])
    over = np.subtract(round_trips, policy)
    return {
        "overhead_ms_p50": float(np.quantile(over, 0.5)),
        "overhead_ms_p99": float(np.quantile(over, 0.99)),
        "policy_ms_p50": statistics.median(policy),
        "overhead_requests": requests,
    }


def module(name: str, *arguments: Any) -> dict[str, Any]:
    """The line of JSON that a program of this folder prints."""
    command = [sys.executable, "-m", f"experiments.serving.{name}", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def many_clients(run: str, clients: int, seconds: float) -> dict[str, Any]:
    """Clients in chunk mode of a policy with one sampling step."""
    with server("--run", run, "--batch", "16") as (process, url):
        module("load", url, "--clients", clients, "--seconds", WARM_SECONDS)
        before = resident(process)
        result = module("load", url, "--clients", clients, "--seconds", seconds)
        batches = metrics(url)
        result["load_growth_mb"] = resident(process) - before
        result["mean_batch"] = batches["dpjax_chunks"] / batches["dpjax_batches"]
    return {**result, "load_seconds": seconds}


def hostile(run: str, number: int) -> dict[str, Any]:
    """Mutated messages, with a good client beside them."""
    with server("--run", run, "--batch", "1") as (process, url):
        module("fuzz", url, "--messages", WARM_MESSAGES, "--seed", 1)
        before = resident(process)
        result = module("fuzz", url, "--messages", number)
        result["growth_mb"] = resident(process) - before
        result["crashes"] = int(metrics(url).get("dpjax_errors", 0)) + (process.poll() is not None)
    return result


def one_step_policy(folder: Path) -> str:
    """A MeanFlow policy of a few training steps on the demonstrations that come with dpjax."""
    if not (folder / "config.json").exists():
        changes = ("train.steps=20", "train.steps_per_call=10", "optim.warmup=2")
        changes += ("save.every=20", "log.every=10", "val.every=0", "eval.every=0")
        collect.run_module(
            "dpjax.train",
            "--config=pusht_state_meanflow_small",
            f"--workdir={folder}",
            f"--config.data.dir={demonstrations()}",
            *(f"--config.{change}" for change in changes),
        )
    return str(folder)


def demonstrations() -> str:
    """The data of the recipe `pusht_demo`."""
    from dpjax.config import recipes

    return recipes.load("pusht_demo").data.dir


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.serving.run")
    parser.add_argument("--one-step", help="a run with one sampling step")
    parser.add_argument("--requests", type=int, default=5000, help="of the overhead")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    args = parser.parse_args(argv)
    run = args.one_step or one_step_policy(Path("runs/serving_one_step"))
    results = {
        **overhead(args.requests),
        **many_clients(run, args.clients, args.seconds),
        **hostile(run, args.messages),
        **provenance.provenance(),
    }
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
