"""From samples with time stamps to the history of observations that a policy takes.

A sensor measures when it likes. The history of To observations is on a grid of the control period,
so each column is brought onto that grid: numbers by linear interpolation, rotations along the
shortest arc (slerp), and images by taking the newest one that is not from the future.

Everything here is a pure function of arrays.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dpjax.core import rotations
from dpjax.core.errors import UserError
from dpjax.policies.layouts import Part
from dpjax.robot.base import Samples


class Stale(UserError):
    """A sensor has no sample that is new enough. The loop holds the robot until one arrives.

    sensor: its name. age: seconds since its newest sample; infinite if there was none.
    """

    def __init__(self, sensor: str, age: float, max_age: float):
        super().__init__(
            f"sensor {sensor!r}: its newest sample is {age:.3f} s old (inf: there is none from "
            f"before that time), {max_age:.3f} s are allowed."
        )
        self.sensor = sensor
        self.age = age


class Column(NamedTuple):
    """How a sensor's samples are brought onto the grid.

    parts: the parts of the column as `policies.layouts.parse` reads them; () for plain numbers.
    is_image: the newest image that is not from the future is taken, without interpolation.
    max_age: seconds; a grid time that is later than the newest sample by more raises `Stale`.
    """

    parts: tuple[Part, ...] = ()
    is_image: bool = False
    max_age: float = 0.5


def append(kept: Samples | None, new: Samples, sensor: str, since: float) -> Samples:
    """Samples that are kept, followed by those of `new` that are newer.

    since: samples before this time are dropped, except for the last of them, which is needed to
        interpolate at `since`.

    Raises UserError if the new times do not ascend or are not finite.
    """
    times = np.asarray(new[0], np.float64)
    values = np.asarray(new[1])
    if times.ndim != 1 or len(times) != len(values):
        raise UserError(
            f"sensor {sensor!r}: {list(times.shape)} times for {len(values)} values; each sample "
            "has one time."
        )
    if not np.isfinite(times).all() or (np.diff(times) < 0).any():
        raise UserError(f"sensor {sensor!r}: its times must be finite and ascend.")
    # A robot may return samples that it has returned before.
    if kept is not None and len(kept[0]):
        is_new = times > kept[0][-1]
        times = np.concatenate([kept[0], times[is_new]])
        values = np.concatenate([kept[1], values[is_new]])
    # One sample from before `since` stays, to interpolate from.
    first = max(int(np.searchsorted(times, since, side="right")) - 1, 0)
    return times[first:], values[first:]


def history(
    samples: Mapping[str, Samples],
    columns: Mapping[str, Column],
    times: np.ndarray,
    tolerance: float = 0.0,
) -> dict[str, np.ndarray]:
    """{sensor: [To, ...]}, every column at the given times.

    samples: {sensor: (times of the events [n], values [n, ...])}, latencies subtracted.
    times: [To], ascending, in the same seconds. Those before the first sample get the first
        sample, as at the beginning of a demonstration, where the first step is repeated; but the
        newest time needs a sample that is not from its future.
    tolerance: seconds by which an image, or a first sample, may be later than its time. A camera
        that is read at the beginning of a step is a little later than the step.

    Raises Stale if the newest sample of a column is too old, or if there is none.
    """
    result = {}
    for name, column in columns.items():
        at, values = samples.get(name, (np.zeros(0), np.zeros(0)))
        # Without a sample before the newest time, there is nothing of that time.
        is_known = len(at) and at[0] <= times[-1] + tolerance
        age = float(times[-1] - at[-1]) if is_known else np.inf
        if age > column.max_age:
            raise Stale(name, age, column.max_age)
        result[name] = resample(at, values, column, times, tolerance)
    return result


def resample(
    at: np.ndarray, values: np.ndarray, column: Column, times: np.ndarray, tolerance: float = 0.0
) -> np.ndarray:
    """Values [n, ...] measured at times [n], on a grid of times [T]; held at both ends."""
    if column.is_image or values.dtype == np.uint8:
        newest = np.searchsorted(at, times + tolerance, side="right") - 1
        return values[np.maximum(newest, 0)]
    # The sample at or before each grid time, and the one after it.
    before = np.maximum(np.searchsorted(at, times, side="right") - 1, 0)
    after = np.minimum(before + 1, len(at) - 1)
    # The share of the way from the one to the other, 0 where both are the same sample.
    span = at[after] - at[before]
    share = np.clip((times - at[before]) / np.where(span > 0, span, 1.0), 0.0, 1.0)
    return interpolate(values[before], values[after], share, column.parts)


def interpolate(
    a: np.ndarray, b: np.ndarray, share: np.ndarray, parts: Sequence[Part]
) -> np.ndarray:
    """From a [T, ...] to b [T, ...] by a share [T]: linear, and slerp in parts that are rotations.

    Returns the dtype of a, or float64 for integers.
    """
    # One share per step, for all numbers of that step.
    share = share.reshape(-1, *(1,) * (a.ndim - 1))
    mixed = a + share * (np.asarray(b, np.float64) - a)
    # Rotations replace what the linear mixture made of their numbers.
    start = 0
    for part in parts:
        end = start + part.size
        if part.form:
            mixed[..., start:end] = _slerp(a[..., start:end], b[..., start:end], share, part.form)
        start = end
    return mixed.astype(a.dtype) if np.issubdtype(a.dtype, np.floating) else mixed


def _slerp(a: np.ndarray, b: np.ndarray, share: np.ndarray, form: str) -> np.ndarray:
    """Rotations between a and b [..., n] on the shortest arc, in the form that both have."""
    # R = R_a exp(share · log(R_a^T R_b)): the axis-angle vector of the difference, shortened.
    first = rotations.FORMS[form].to_matrix(np.asarray(a, np.float64))
    second = rotations.FORMS[form].to_matrix(np.asarray(b, np.float64))
    turn = rotations.to_axis_angle(np.swapaxes(first, -1, -2) @ second)
    return rotations.FORMS[form].from_matrix(first @ rotations.from_axis_angle(share * turn))
