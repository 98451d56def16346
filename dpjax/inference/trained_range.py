"""Counts observations far outside of the data that a policy was trained on.

There a network's actions mean nothing, and the cause is often a wrong unit or order. Counting costs
a few microseconds per call, since only the newest observed step is compared with two vectors.
"""

from collections.abc import Mapping
import logging
from typing import NamedTuple

import numpy as np

# An observation is far beyond this many network units. "limits" maps the training data to [-1, 1].
FAR = 3.0

log = logging.getLogger("dpjax")


class Range(NamedTuple):
    """The numbers of one observation that are not far, in data units; infinite where all are.

    low, high: [D] float32.
    """

    low: np.ndarray
    high: np.ndarray


class FarObservations:
    """Counts observations outside of their range. The first one of each key is logged.

    counts: {key: observations outside}. total: observations so far.
    """

    def __init__(self, ranges: Mapping[str, Range]):
        """ranges: {key: Range} of the keys to watch."""
        self.ranges = dict(ranges)
        self.counts = dict.fromkeys(ranges, 0)
        self.total = 0

    def count(self, obs: Mapping[str, np.ndarray], batch_size: int) -> None:
        """Counts the newest step of observations {key: [B, To, D]}, of B examples."""
        self.total += batch_size
        for key, (low, high) in self.ranges.items():
            newest = obs[key][:, -1]  # [B, D]; the steps before it were newest in earlier calls
            # NaN is outside of every range.
            inside = (newest >= low) & (newest <= high)
            if not inside.all():
                self._add(key, newest, inside)

    def _add(self, key: str, newest: np.ndarray, inside: np.ndarray) -> None:
        """Counts examples of one key that are outside, and logs the first of them."""
        is_first = self.counts[key] == 0
        number = int((~inside).any(axis=1).sum())
        self.counts[key] += number
        if is_first:
            b, d = np.argwhere(~inside)[0]
            low, high = (limit[d] for limit in self.ranges[key])
            log.warning(
                "obs: %s[%d] = %g is far outside of the training data, %g to %g with a wide "
                "margin: %d of %d observations so far (check its unit and order)",
                key,
                d,
                newest[b, d],
                low,
                high,
                self.counts[key],
                self.total,
            )

    def log_counts(self) -> None:
        """Logs the number of far observations of each key that has any, at the end of a use."""
        for key, number in self.counts.items():
            if number:
                log.warning(
                    "obs: %s was far outside of the training data in %d of %d observations",
                    key,
                    number,
                    self.total,
                )
