"""What a server counts, for /metrics and for the log."""

from collections import Counter, deque
import threading

import numpy as np

RECENT = 1000  # durations that the percentiles are of


class Counts:
    """Counters and recent durations; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._durations: dict[str, deque[float]] = {}

    def add(self, name: str, number: int = 1) -> None:
        """Adds to the counter `name`."""
        with self._lock:
            self._counts[name] += number

    def time(self, name: str, seconds: float) -> None:
        """Adds a duration in seconds."""
        with self._lock:
            self._durations.setdefault(name, deque(maxlen=RECENT)).append(seconds)

    def __getitem__(self, name: str) -> int:
        with self._lock:
            return self._counts[name]

    def text(self, values: dict[str, float]) -> str:
        """One line per number, as Prometheus reads it: `dpjax_requests 12`.

        values: further numbers, of the present moment.
        """
        # Copies under the lock; the percentiles are computed while others go on counting.
        with self._lock:
            numbers: dict[str, float] = {**self._counts, **values}
            durations = {name: np.array(seconds) for name, seconds in self._durations.items()}
        for name, seconds in durations.items():
            numbers[f"{name}_ms_p50"] = round(1e3 * float(np.quantile(seconds, 0.5)), 3)
            numbers[f"{name}_ms_p99"] = round(1e3 * float(np.quantile(seconds, 0.99)), 3)
        return "".join(f"dpjax_{name} {number:g}\n" for name, number in sorted(numbers.items()))
