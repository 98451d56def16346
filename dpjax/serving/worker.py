"""The thread that owns JAX: it samples action chunks for all clients, several in one batch.

A client's thread calls `ask` and waits. The worker takes what waits, as one batch, and hands the
chunks back (`batching`). An answer does not depend on the others of its batch.
"""

import threading
import time

import numpy as np

from dpjax.core.errors import UserError
from dpjax.inference.chunks import is_finite
from dpjax.serving.batching import Request, call
from dpjax.serving.metrics import Counts

GATHER = 0.001  # seconds that a batch waits for other clients, if there are any
ANSWER = 60.0  # seconds after which a client's thread gives up on the worker


class Late(UserError):
    """The deadline of a request passed, or would pass, before its answer."""


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
            # Both are refused here, in the client's own thread: they never enter the queue.
            if self._is_stopped:
                raise UserError("the server is stopping.")
            self._refuse_late(request)
            self._waiting.append(request)
            self._changed.notify_all()
        # The lock is free while this thread waits; the worker's own errors are raised here.
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
        # Those that wait fill so many batches, and each takes about as long as the last ones did.
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
        # The oldest request decides about the version, so that none waits forever.
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
        # Sampling took time: a late action is worse than none.
        if self._is_late(request):
            return
        # The other requests of the batch have their chunks all the same.
        if not is_finite(chunks).all():
            self._counts.add("not_finite")
            request.future.set_exception(
                UserError("the sampled actions are not finite: none of them is sent.")
            )
            return
        request.future.set_result(chunks)
