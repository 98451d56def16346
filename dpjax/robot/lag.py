"""How late a sensor or an actuator is: the shift at which two recordings of one motion agree.

Move the robot by hand or by a sine, record what was sent and what was measured, and give both to
`lag`. The recipe is UMI's (Chi et al. 2024): both signals on a fine grid, standardized, and the
shift with the largest correlation.
"""

from typing import NamedTuple

import numpy as np

from dpjax.core.errors import UserError

GRID = 1e-3  # seconds
# A correlation below this is not an agreement: other signals, or no motion.
AGREES = 0.8


class Lag(NamedTuple):
    """seconds: how much later the second signal is. correlation: at that shift, at most 1."""

    seconds: float
    correlation: float


def lag(
    sent_times: np.ndarray,
    sent: np.ndarray,
    measured_times: np.ndarray,
    measured: np.ndarray,
    *,
    largest: float = 1.0,
) -> Lag:
    """The shift, from -largest to largest seconds, at which `measured` agrees best with `sent`.

    Args:
        sent_times, measured_times: [n] and [m], seconds of one clock, ascending.
        sent, measured: [n] and [m], one number each, such as one joint.
        largest: seconds. The signals must overlap by at least twice as much.

    Raises:
        UserError: if they do not overlap for long enough, do not move, or do not agree.
    """
    # The time in which both were recorded.
    start = max(sent_times[0], measured_times[0])
    end = min(sent_times[-1], measured_times[-1])
    if end - start < 2 * largest:
        raise UserError(
            f"the signals overlap by {max(end - start, 0.0):.2f} s; at least {2 * largest:.2f} s "
            "are needed.",
            argument="largest",
        )
    grid = np.arange(start, end, GRID)
    first = _standardized(np.interp(grid, sent_times, sent), "sent")
    second = _standardized(np.interp(grid, measured_times, measured), "measured")
    # Only the middle of `sent` is compared, so that every shift has the same number of points.
    margin = round(largest / GRID)
    middle = first[margin : len(first) - margin]
    shifts = np.arange(-margin, margin + 1)
    scores = np.array([_correlation(middle, second[margin + s :][: len(middle)]) for s in shifts])
    # Where the two agree best. Two unrelated signals agree a little at some shift as well.
    best = int(scores.argmax())
    if scores[best] < AGREES:
        raise UserError(
            f"the signals do not agree at any shift: the largest correlation is "
            f"{scores[best]:.2f}, {AGREES} is needed. Record a clear motion of the same joint."
        )
    return Lag(float(shifts[best] * GRID), float(scores[best]))


def _standardized(x: np.ndarray, name: str) -> np.ndarray:
    """x with mean 0 and standard deviation 1. Raises UserError if it does not move."""
    spread = x.std()
    if not spread > 1e-9 * np.abs(x).max():
        raise UserError(f"{name}: the signal does not move.", argument=name)
    return (x - x.mean()) / spread


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of two signals of the same length."""
    a = a - a.mean()
    b = b - b.mean()
    return float(a @ b / np.sqrt((a @ a) * (b @ b) + 1e-30))
