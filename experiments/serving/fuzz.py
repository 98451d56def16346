"""Mutated messages to a policy server, and a good client beside them.

    python -m experiments.serving.fuzz URL --messages 1000000

Prints a line of JSON: how many were answered, and how the good client fared.
"""

import argparse
import asyncio
import itertools
import json
import time
from typing import Any

import numpy as np
from websockets.asyncio.client import connect

from dpjax.serving import wire
from experiments.serving import messages
from experiments.serving.load import STATE

WINDOW = 50  # messages on their way at the same time


async def fuzz(url: str, number: int, seed: int) -> int:
    """Sends mutated messages and reads an answer to each; returns how many were refused."""
    refused = 0
    source = messages.mutated(number, seed)
    async with connect(url, compression=None) as websocket:
        await websocket.recv()
        while window := list(itertools.islice(source, WINDOW)):
            for data in window:
                await websocket.send(data)
            for _ in window:
                refused += isinstance(await websocket.recv(), str)
    return refused


async def act(url: str, ended: asyncio.Event) -> dict[str, Any]:
    """A good client, which asks ten times per second until the others have ended."""
    good = wire.pack({"state": STATE})
    latencies = []
    errors = 0
    async with connect(url, compression=None) as websocket:
        await websocket.recv()
        while not ended.is_set():
            before = time.monotonic()
            await websocket.send(good)
            errors += isinstance(await websocket.recv(), str)
            latencies.append(time.monotonic() - before)
            await asyncio.sleep(0.1)
    p50, p99 = (1e3 * float(np.quantile(latencies, q)) for q in (0.5, 0.99))
    return {"requests": len(latencies), "errors": errors, "p50_ms": p50, "p99_ms": p99}


async def both(url: str, number: int, seed: int) -> dict[str, Any]:
    """The mutated messages, with the good client beside them."""
    ended = asyncio.Event()
    good = asyncio.create_task(act(url, ended))
    refused = await fuzz(url, number, seed)
    ended.set()
    return {"fuzzed_messages": number, "refused": refused, "good_client": await good}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.serving.fuzz")
    parser.add_argument("url")
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(json.dumps(asyncio.run(both(args.url, args.messages, args.seed))))


if __name__ == "__main__":
    main()
