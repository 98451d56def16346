"""A policy server with a policy of three lines, and clients."""

import contextlib
import threading
import time

import jax
import numpy as np
from websockets.sync.client import connect

from dpjax.serving import wire
from dpjax.serving.batching import Version
from dpjax.serving.contract import Contract
from dpjax.serving.metrics import Counts
from dpjax.serving.server import Server
from dpjax.serving.service import Service
from dpjax.serving.worker import Worker

OBSERVED, PREDICTED, EXECUTED = 2, 8, 4


def vector(size):
    """The shape of a history of `size` numbers."""
    return jax.ShapeDtypeStruct((OBSERVED, size), np.float32)


SHAPES = {"state": vector(3)}
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


@contextlib.contextmanager
def client(url, **options):
    """A websocket after the server's first message."""
    with connect(url, compression=None, **options) as websocket:
        websocket.metadata = wire.unpack(websocket.recv(5), 1 << 20)
        yield websocket


def ask(websocket, **message):
    """The answer to a message: a map, or a text."""
    websocket.send(wire.pack(message))
    answer = websocket.recv(10)
    return answer if isinstance(answer, str) else wire.unpack(answer, 1 << 20)


def wait_for(condition, seconds=5.0):
    """Waits until the condition holds; returns whether it does."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()
