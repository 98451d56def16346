"""The thread that owns JAX: it samples action chunks for all clients, several in one batch.

A client's thread calls `ask` and waits. The worker takes what waits, as one batch, and hands the
chunks back. Each example has its own key, so an answer does not depend on the others of its batch:
it is bit-equal within one batch size and equal up to rounding across batch sizes.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
import threading
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from dpjax.core.errors import UserError
from dpjax.inference.compiled import bucket, pad
from dpjax.inference.controller import is_finite
from dpjax.serving.metrics import Counts

GATHER = 0.001  # seconds that a batch waits for other clients, if there are any
ANSWER = 60.0  # seconds after which a client's thread gives up on the worker


class Version(NamedTuple):
    """A policy as it is served; another checkpoint is another version.

    sample_actions: (keys [B], obs[, previous[, committed]]) -> [B, Tp, Da].
    warm_up: compiles for the given batch sizes.
    about: {"checkpoint": step, …}, for the metadata and the replies.
    """

    sample_actions: Callable[..., Any]
    warm_up: Callable[[Iterable[int]], Any]
    about: dict[str, Any]


class Late(UserError):
    """The deadline of a request passed, or would pass, before its answer."""


@dataclass(eq=False)
class Request:
    """Examples of one client, of one version of the policy.

    seconds: how long its batch took to sample; 0 before.
    """

    version: Version
    key_data: np.ndarray  # uint32 [n, words]
    obs: Mapping[str, np.ndarray]  # {name: [n, To, ...]}
    previous: np.ndarray | None = None  # [n, Tp, Da]
    committed: np.ndarray | None = None  # int32 [n]
    deadline: float = float("inf")  # seconds of time.monotonic
    future: Future = field(default_factory=Future)
    seconds: float = 0.0


class Worker:
    """Gathers requests into batches and samples them; `run` is called in one thread.

    clients: how many are connected. A batch waits for others only if there are several.
    """

    def __init__(self, counts: Counts, max_batch: int = 16, gather: float = GATHER):
        """max_batch: examples of one batch at most. gather: seconds that a batch waits."""
        self.clients = 0
        self.max_batch = max_batch
        self._gather_seconds = gather
        self._counts = counts
        self._waiting: list[Request] = []
        self._changed = threading.Condition()
        self._is_stopped = False
        self._batch_seconds = 0.0  # a running mean, for the estimate in `_refuse_late`

    def ask(self, request: Request) -> np.ndarray:
        """Waits for the action chunks [n, Tp, Da] of a request.

        Raises `Late` if its deadline cannot be kept, and UserError if the chunks are not finite,
        if there are too many examples, or if the server stops.
        """
        if len(request.key_data) > self.max_batch:
            raise UserError(
                f"{len(request.key_data)} examples in one request, but the server takes "
                f"{self.max_batch}: send them in parts.",
                argument="obs",
            )
        with self._changed:
            if self._is_stopped:
                raise UserError("the server is stopping.")
            self._refuse_late(request)
            self._waiting.append(request)
            self._changed.notify_all()
        return request.future.result(ANSWER)

    def run(self) -> None:
        """Samples until `stop`; then the requests that wait are answered before it returns."""
        while (batch := self._next_batch()) is not None:
            self._answer(batch)

    def stop(self) -> None:
        """Takes no further request."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def _refuse_late(self, request: Request) -> None:
        """Raises `Late` if the requests before this one take longer than its deadline allows."""
        batches = len(self._waiting) // self.max_batch + 1
        seconds = batches * self._batch_seconds
        if time.monotonic() + seconds > request.deadline:
            self._counts.add("busy")
            raise Late(
                f"busy: an answer takes {1e3 * seconds:.0f} ms, beyond the request's deadline."
            )

    def _next_batch(self) -> list[Request] | None:
        """Waits for requests; returns those of one version. None after `stop`, if none waits."""
        with self._changed:
            while not self._waiting:
                if self._is_stopped:
                    return None
                # With a time limit, so that a signal reaches the main thread if this is it.
                self._changed.wait(0.2)
            # Other clients may ask within a moment. A client that is alone never waits.
            until = time.monotonic() + self._gather_seconds
            while len(self._waiting) < min(self.clients, self.max_batch):
                left = until - time.monotonic()
                if left <= 0 or self._is_stopped:
                    break
                self._changed.wait(left)
            return self._take()

    def _take(self) -> list[Request]:
        """Removes the oldest request and, as far as they fit, others of its version."""
        batch: list[Request] = []
        rest: list[Request] = []
        size = 0
        for request in self._waiting:
            fits = size + len(request.key_data) <= self.max_batch
            if fits and request.version is self._waiting[0].version:
                batch.append(request)
                size += len(request.key_data)
            else:
                rest.append(request)
        self._waiting = rest
        return batch

    def _answer(self, batch: list[Request]) -> None:
        """Samples a batch and hands each request its chunks, or its error."""
        # 1. A request whose deadline has passed does not enter the batch.
        batch = [request for request in batch if not self._is_late(request)]
        if not batch:
            return
        # 2. Sample. If it fails, each request is tried alone: one of them may be the reason.
        start = time.monotonic()
        try:
            chunks = call(batch)
        except Exception as error:  # handed to the thread that asked, which reports it
            for request in batch:
                if len(batch) == 1:
                    request.future.set_exception(error)
                else:
                    self._answer([request])
            return
        seconds = time.monotonic() - start
        mean = self._batch_seconds
        self._batch_seconds = seconds if mean == 0 else 0.9 * mean + 0.1 * seconds
        self._counts.time("batch", seconds)
        self._counts.add("batches")
        self._counts.add("chunks", len(chunks))
        # 3. Hand the chunks back.
        first = 0
        for request in batch:
            last = first + len(request.key_data)
            request.seconds = seconds
            self._finish(request, chunks[first:last])
            first = last

    def _is_late(self, request: Request) -> bool:
        """Whether the deadline has passed; the request then has its error."""
        if time.monotonic() <= request.deadline:
            return False
        self._counts.add("late")
        request.future.set_exception(Late("late: the request's deadline has passed."))
        return True

    def _finish(self, request: Request, chunks: np.ndarray) -> None:
        """Gives a request its chunks, if it is in time and all of them are finite."""
        if self._is_late(request):
            return
        if not is_finite(chunks).all():
            self._counts.add("not_finite")
            request.future.set_exception(
                UserError("the sampled actions are not finite: none of them is sent.")
            )
            return
        request.future.set_result(chunks)


def call(batch: list[Request]) -> np.ndarray:
    """The action chunks [n, Tp, Da] of all examples of the requests, in their order."""
    version = batch[0].version
    sizes = [len(request.key_data) for request in batch]
    # Padded to the sizes that were compiled for: no other shape ever reaches JAX.
    size = bucket(sum(sizes))
    join = lambda arrays: pad(np.concatenate(arrays), size) if len(batch) > 1 else arrays[0]
    key_data = join([request.key_data for request in batch])
    obs = {name: join([request.obs[name] for request in batch]) for name in batch[0].obs}
    # NaN stands for "no previous chunk", 0 for "no step is committed".
    optional = []
    if any(request.committed is not None for request in batch):
        given = [request.committed for request in batch]
        optional = [join([np.zeros(n, np.int32) if c is None else c for c, n in zip(given, sizes)])]
    if optional or any(request.previous is not None for request in batch):
        optional = [_previous(batch, sizes, join), *optional]
    keys = jax.random.wrap_key_data(key_data)
    return np.asarray(version.sample_actions(keys, obs, *optional))[: sum(sizes)]


def _previous(batch: list[Request], sizes: list[int], join: Callable) -> np.ndarray | None:
    """The previous chunks [size, Tp, Da] of the batch; None if no request has one."""
    shapes = [request.previous.shape[1:] for request in batch if request.previous is not None]
    if not shapes:
        return None
    unknown = [np.full((n, *shapes[0]), np.nan, np.float32) for n in sizes]
    return join([u if r.previous is None else r.previous for r, u in zip(batch, unknown)])


def zeros(version: Version, obs_shapes: Mapping[str, Any], size: int) -> Request:
    """A request of `size` examples that are all zero, to warm up and to try a version."""
    obs = {name: np.zeros((size, *x.shape), x.dtype) for name, x in obs_shapes.items()}
    return Request(version, np.zeros((size, 2), np.uint32), obs)


def warm_up(version: Version, obs_shapes: Mapping[str, Any], max_batch: int) -> None:
    """Compiles a version for all batch sizes, and tries each once.

    Raises UserError if a chunk is not finite.
    """
    sizes = [1 << i for i in range(bucket(max_batch).bit_length())]
    version.warm_up(sizes)
    # Small programs, such as that which makes keys of numbers, are compiled by calls alone.
    for size in sizes:
        if not is_finite(call([zeros(version, obs_shapes, size)])).all():
            raise UserError("its action chunks are not finite.")
