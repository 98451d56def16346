"""A policy server with a policy of three lines, and messages that were damaged on the way."""

import contextlib
import random
import threading
import time

import jax
import msgpack
import numpy as np

from dpjax.serving import wire
from dpjax.serving.connection import Service
from dpjax.serving.contract import Contract
from dpjax.serving.metrics import Counts
from dpjax.serving.server import Server
from dpjax.serving.worker import Version, Worker

OBSERVED, PREDICTED, EXECUTED = 2, 8, 4
SHAPES = {"state": jax.ShapeDtypeStruct((OBSERVED, 3), np.float32)}
IMAGES = {**SHAPES, "image": jax.ShapeDtypeStruct((OBSERVED, 8, 6, 3), np.uint8)}
STATE = np.array([1.0, 2.0, 3.0], np.float32)


def chunks(keys, obs, previous=None, committed=None):
    """[B, Tp, 2]: the sum of the observed steps, and the key; later steps are larger by 1."""
    noise = np.asarray(jax.random.key_data(keys))[:, 1] % 1000
    first = np.stack([obs["state"].sum((1, 2)), noise], axis=1)  # [B, 2]
    return (first[:, None] + np.arange(PREDICTED)[:, None]).astype(np.float32)


def version(sample=chunks, checkpoint=1):
    return Version(sample, lambda sizes: None, {"checkpoint": checkpoint})


def contract(shapes=SHAPES, **options):
    observe = lambda columns: {
        k: v if v.dtype == np.uint8 else np.float32(v) for k, v in columns.items()
    }
    return Contract(tuple(shapes), observe, shapes, 2, PREDICTED, EXECUTED, **options)


def service(sample=chunks, shapes=SHAPES, max_batch=8, **options):
    """A service without sockets, whose worker runs in a thread of its own."""
    counts = Counts()
    worker = Worker(counts, max_batch)
    threading.Thread(target=worker.run, daemon=True).start()
    return Service(contract(shapes), worker, counts, version(sample), seed=0, **options)


@contextlib.contextmanager
def serving(service, **options):
    """Serves; yields (server, url)."""
    server = Server(service, **options)
    port = server.start()
    server.is_ready.set()
    scheme = "wss" if options.get("tls") else "ws"
    try:
        yield server, f"{scheme}://127.0.0.1:{port}"
    finally:
        server.stop(1.0)


def wait_for(condition, seconds=5.0):
    """Waits until the condition holds; returns whether it does."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


def array(**changes):
    """An array on the wire, three float32, with some of its entries replaced."""
    entries = {"__ndarray__": True, "data": b"\0" * 12, "dtype": "<f4", "shape": [3]}
    return {key.encode(): value for key, value in {**entries, **changes}.items()}


# Arrays that must not be believed.
HOSTILE = (
    array(dtype="|O"),
    array(dtype="O"),
    array(dtype="<c8"),
    array(dtype="|V4"),
    array(dtype="<f4,<f4"),
    array(dtype=None),
    array(dtype=["a"]),
    array(shape=[-1]),
    array(shape=[2**40]),
    array(shape=[0]),
    array(shape=[2**31, 2**31, 2**31]),
    array(shape=[1, 1, 1, 1, 1, 1, 3]),
    array(shape=[True, 3]),
    array(shape=3),
    array(data="abc"),
    array(data=b"\0" * 11),
    {b"__npgeneric__": True, b"dtype": "|u1", b"data": 2**60},
    {b"__npgeneric__": True, b"dtype": "<f2", b"data": 1e300},
    {b"__npgeneric__": True, b"dtype": "<f4", b"data": [1]},
    {b"__ndarray__": 1},
)
DEEP = b"\x81\xa1k" * 2000 + b"\xc0"
GOOD = wire.pack(
    {
        "state": STATE,
        "image": np.zeros((8, 6, 3), np.uint8),
        "prompt": "x",
        "n": {"a": [1, 2.5, None]},
    }
)


def mutated(number, seed=0):
    """`number` messages: hostile arrays in nested maps, and a good message with random edits."""
    rng = random.Random(seed)
    for i in range(number):
        if i % 3 == 0:
            value = rng.choice(HOSTILE)
            for _ in range(rng.randrange(4)):
                value = {"k": value, 1: [value]}
            yield msgpack.packb({rng.choice(["state", "obs", "key"]): value})
        elif i % 5000 == 1:
            yield DEEP
        else:
            yield edited(rng)


def edited(rng):
    """The good message with some bytes replaced, removed, inserted or cut off."""
    data = bytearray(GOOD)
    for _ in range(rng.randrange(1, 8)):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            data[at : at + 1] = rng.randbytes(1)
        elif kind == 1:
            del data[at : at + rng.randrange(1, 20)]
        elif kind == 2:
            data[at:at] = rng.randbytes(rng.randrange(1, 20))
        else:
            del data[at:]
    return bytes(data)
