"""Rules about how numbers move from step to step: angles, jumps, rotations."""

import numpy as np

from dpjax.check.context import Case, Finding, counted, named, place, rotated, steps, two_valued
from dpjax.core.types import ACTION

JUMP = 10.0  # times the 99th percentile of a dim's steps: teleoperation moves no faster
JUMP_RANGE = 0.25  # of the range: smaller jumps are noise of a dim that hardly moves
TURNS = {"radians": 2 * np.pi, "degrees": 360.0}
WRAP = 0.15  # of a turn: how near to a whole turn a step must be to be a wrap
USUAL = 3.0  # times the 99th percentile of the other steps: what is left of a wrap is no more
UNIT = 1e-2  # |length - 1| of a quaternion that rounding does not explain


def wraps(case: Case) -> list[Finding]:
    """Angles that jump by a whole turn between two steps."""
    found = []
    for key, x in case.numbers.items():
        for unit, turn in TURNS.items():
            whole = _whole_turns(case, x, turn) & ~rotated(case, key)
            dims = np.flatnonzero(whole.any(0))
            if not len(dims):
                continue
            row = int(np.argmax(whole[:, dims].any(1)))
            reason = (
                f"an angle in {unit} that wraps: {named(key, dims)}, {int(whole.sum())} "
                f"jumps of a whole turn, the first at {place(case, row)}"
            )
            remedy = (
                "put its sine and cosine in its place: to a network the two ends of the turn "
                "are far apart (whole rotations: config.spaces.layouts)"
            )
            found.append(Finding("warning", "wraps", reason, remedy))
    return found


def _whole_turns(case, x, turn):
    """bool [N - 1, D]: steps that are a usual one but for a whole turn."""
    moved = steps(case, x)
    whole = np.abs(moved - turn) < WRAP * turn
    angle = (np.ptp(x, axis=0) < (1 + WRAP) * turn) & ~two_valued(x) & whole.any(0)
    for d in np.flatnonzero(angle):
        usual = np.quantile(moved[~whole[:, d], d], 0.99)
        whole[:, d] &= np.abs(moved[:, d] - turn) < USUAL * usual
    return whole & angle


def jumps(case: Case) -> list[Finding]:
    """Action steps far above the usual ones: lost tracking, or two episodes run together."""
    x = case.action
    moved = steps(case, x)
    usual = np.quantile(moved, 0.99, axis=0)
    far = (moved > JUMP * usual) & (moved > JUMP_RANGE * np.ptp(x, axis=0)) & (usual > 0)
    for turn in TURNS.values():  # `wraps` says those
        far &= ~_whole_turns(case, x, turn)
    dims = np.flatnonzero(far.any(0) & ~two_valued(x))
    if not len(dims):
        return []
    rows = np.flatnonzero(far[:, dims].any(1))
    d = dims[np.argmax(far[rows[0], dims])]
    reason = (
        f"{named(ACTION, dims)} jump: {counted(len(rows), 'step')} of more than {JUMP:g} times the "
        f"99th percentile, the first {x[rows[0], d]:.4g} to {x[rows[0] + 1, d]:.4g} of "
        f"{ACTION}[{d}] after {place(case, rows[0])}"
    )
    remedy = "cut the episodes there, or leave them out: a robot cannot follow, a policy would try"
    return [Finding("warning", "jumps", reason, remedy)]


def quaternions(case: Case) -> list[Finding]:
    """Four numbers that are a rotation: of another length than 1, or with the sign flipped."""
    found = []
    for key, x in case.numbers.items():
        named_so = "quat" in key.lower()
        for d in () if rotated(case, key).any() else _rotations(x, named_so):
            q = x[:, d : d + 4]
            dims = named(key, range(d, d + 4))
            off = np.abs(np.linalg.norm(q, axis=1) - 1)
            if off.max() > UNIT:
                reason = f"{dims} is no unit quaternion: its length is off by up to {off.max():.3g}"
                remedy = "divide it by its length when the data are converted"
                found.append(Finding("warning", "quaternions", reason, remedy))
            flips = ((q[:-1] * q[1:]).sum(1) < -0.5) & case.inside
            if flips.any():
                where = place(case, int(np.argmax(flips)))
                reason = f"quaternion {dims} flips its sign {flips.sum()} times, first at {where}"
                remedy = (
                    f"config.spaces.layouts.{key}, with its dims as quaternion_wxyz or _xyzw: the "
                    "network sees 6-D, in which q and -q are one"
                )
                found.append(Finding("warning", "quaternions", reason, remedy))
    return found


def _rotations(x, named_so):
    """Where in [N, D] four neighbours are a moving quaternion: by name, or by their length."""
    found, d = [], 0
    if named_so and x.shape[1] == 4:
        return [0]
    squares = x.astype(np.float64) ** 2
    while d + 4 <= x.shape[1]:
        unit = np.abs(squares[:, d : d + 4].sum(1) - 1).max() < 2e-3
        if unit and (np.ptp(x[:, d : d + 4], axis=0) > 1e-3).sum() >= 2:
            found.append(d)
            d += 3
        d += 1
    return found


RULES = (wraps, jumps, quaternions)
