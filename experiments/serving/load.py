"""Clients of a policy server, in one process with one thread, and what they measured.

    python -m experiments.serving.load URL --clients 32 --seconds 600 --hz 10 --executed 8

Each client is a robot in chunk mode: it sends every step, asks for actions at every eighth (by
`infer`), and lets the others join the history (by `observe`). Prints a line of JSON.
"""

import argparse
import asyncio
import json
import random
import time
from typing import Any

import numpy as np
from websockets.asyncio.client import connect

from dpjax.serving import wire

STATE = np.array([250.0, 260.0, 300.0, 200.0, 1.0], np.float32)


class Client:
    """What one client measured: seconds of the requests that sampled, and errors."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.errors = 0
        self.late = 0  # steps that began after their time, since an answer was not there

    async def run(self, url: str, seconds: float, hz: float, executed: int, start: float) -> None:
        """Acts for some seconds; start: of its first step, on `time.monotonic`."""
        infer = wire.pack({"state": STATE})
        observe = wire.pack({"endpoint": "observe", "state": STATE})
        async with connect(url, compression=None) as websocket:
            await websocket.recv()
            for step in range(int(seconds * hz)):
                due = start + step / hz
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                self.late += time.monotonic() - due > 1 / hz
                is_infer = step % executed == 0
                before = time.monotonic()
                await websocket.send(infer if is_infer else observe)
                answer = await websocket.recv()
                if is_infer:
                    self.latencies.append(time.monotonic() - before)
                # Text is the answer to `observe`, and otherwise an error.
                self.errors += isinstance(answer, str) if is_infer else answer != "ok"


async def drive(url: str, clients: int, seconds: float, hz: float, executed: int) -> list[Client]:
    """All clients at once; their first steps are spread over the time of a chunk."""
    rng = random.Random(0)
    start = time.monotonic() + 1.0
    made = [Client() for _ in range(clients)]
    phases = [start + rng.uniform(0, executed / hz) for _ in made]
    await asyncio.gather(
        *(c.run(url, seconds, hz, executed, phase) for c, phase in zip(made, phases))
    )
    return made


def summarize(clients: list[Client]) -> dict[str, Any]:
    """Fairness: the smallest number of answers over the median one."""
    latencies = np.concatenate([client.latencies for client in clients])
    counts = [len(client.latencies) for client in clients]
    p50, p99 = (1e3 * float(np.quantile(latencies, q)) for q in (0.5, 0.99))
    return {
        "clients": len(clients),
        "requests": len(latencies),
        "fairness": min(counts) / float(np.median(counts)),
        "p50_ms": p50,
        "p99_ms": p99,
        "p99_over_p50": p99 / p50,
        "errors": sum(client.errors for client in clients),
        "late_steps": sum(client.late for client in clients),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.serving.load")
    parser.add_argument("url")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--hz", type=float, default=10)
    parser.add_argument("--executed", type=int, default=8)
    args = parser.parse_args()
    clients = asyncio.run(drive(**vars(args)))
    print(json.dumps(summarize(clients)))


if __name__ == "__main__":
    main()
