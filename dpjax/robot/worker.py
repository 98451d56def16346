"""Where action chunks are sampled while the robot moves: a thread, or a simulated delay."""

from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any, Protocol

from dpjax.robot.clock import FakeTime

Call = Callable[[], Any]


class Worker(Protocol):
    """Runs one call at a time, beside the loop."""

    def start(self, call: Call) -> None:
        """Begins a call; the result of a call before it is forgotten."""

    def is_ready(self, wait: float = 0.0) -> bool:
        """Whether the call that was started last has ended; waits for it for some seconds."""
        ...

    def result(self) -> Any:
        """Waits for the call, and returns its result or raises its error."""
        ...

    def close(self) -> None:
        """Ends the worker, without waiting for a call that hangs."""


class ThreadWorker:
    """A single thread: XLA and sockets release Python's lock while they work."""

    def __init__(self) -> None:
        # One thread, since one policy samples one chunk at a time.
        self._pool = futures.ThreadPoolExecutor(1, thread_name_prefix="chunks")
        self._future: futures.Future | None = None

    def start(self, call: Call) -> None:
        """Queues the call behind one that still runs."""
        self._future = self._pool.submit(call)

    def is_ready(self, wait: float = 0.0) -> bool:
        """Whether the last call has ended."""
        if self._future is None:
            return False
        # `wait` returns early if the call ends, and raises nothing if it fails.
        if wait:
            futures.wait([self._future], timeout=wait)
        return self._future.done()

    def result(self) -> Any:
        """The result of the last call."""
        assert self._future is not None, "start comes first"
        return self._future.result()

    def close(self) -> None:
        """Calls that wait in the queue are dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class SimulatedWorker:
    """For tests and simulations: computes at once, and is ready after a latency in fake time."""

    def __init__(self, time: FakeTime, latencies: Iterator[float]):
        """latencies: seconds of each call, in turn."""
        self._time = time
        self._latencies = latencies
        self._ready_at = float("inf")
        self._call: Call | None = None

    def start(self, call: Call) -> None:
        """The call begins now, and ends one latency later."""
        # The call is made when its result is asked for: it takes no fake time.
        self._call = call
        self._ready_at = self._time.now + next(self._latencies)

    def is_ready(self, wait: float = 0.0) -> bool:
        """Whether the latency has passed; waiting lets the time pass."""
        self._time.until(min(self._ready_at, self._time.now + wait))
        return self._time.now >= self._ready_at

    def result(self) -> Any:
        """Waits, in fake time, and then computes."""
        assert self._call is not None, "start comes first"
        self._time.until(self._ready_at)
        return self._call()

    def close(self) -> None:
        """Nothing to end."""
