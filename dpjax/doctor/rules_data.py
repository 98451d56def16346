"""Rules about the numbers themselves: what their values say, whatever they mean."""

import numpy as np

from dpjax.data import check
from dpjax.doctor.case import (
    Case,
    Finding,
    fixed,
    listed,
    mode,
    mode_key,
    named,
    network,
    numbers_learned,
    place,
    rotated,
    steps,
    two_valued,
)
from dpjax.policy import ACTION

HEAVY = 10.0  # range over the range of the middle 98 %: 4 of a Gaussian, 1 of a uniform
BEYOND = 10.0  # network units: ten deviations, or ten times what "limits" gives
JUMP = 10.0  # times the 99th percentile of a dim's steps: teleoperation moves no faster
JUMP_RANGE = 0.25  # of the range: smaller jumps are noise of a dim that hardly moves
TURNS = {"radians": 2 * np.pi, "degrees": 360.0}
WRAP = 0.15  # of a turn: how near to a whole turn a step must be to be a wrap
USUAL = 3.0  # times the 99th percentile of the other steps: what is left of a wrap is no more
UNIT = 1e-2  # |length - 1| of a quaternion that rounding does not explain


def unreadable(case: Case) -> list[Finding]:
    """Episodes with NaN, infinite or missing numbers, which were left out here."""
    if not case.skipped:
        return []
    refused = case.config.data.on_bad == "refuse"
    reason = f"{len(case.skipped)} episodes cannot be used; the first: {case.skipped[0]}"
    remedy = (
        "mend them, or set config.data.on_bad=skip to train without them"
        if refused
        else "mend them: they are left out of training"
    )
    return [Finding("error" if refused else "warning", "unreadable", reason, remedy)]


def constant(case: Case) -> list[Finding]:
    """Dims that do not move: harmless to training, not where a robot moves them."""
    found, least = [], case.config.normalize.min_range
    for key, x in case.numbers.items():
        still = np.ptp(x, axis=0) < least
        if key == ACTION and still.all():
            reason = f"no dim of the action moves by more than {least:g} (normalize.min_range)"
            remedy = "check config.data.columns.action: there is nothing to learn"
            found.append(Finding("error", "constant", reason, remedy))
        elif still.any():
            dims = named(key, np.flatnonzero(still))
            reason = f"constant to {least:g} over the training data: {dims}"
            remedy = (
                "nothing, where that is so on the robot too; else record data in which it "
                "moves, or leave it out"
            )
            found.append(Finding("note", "constant", reason, remedy))
    return found


def moves_later(case: Case) -> list[Finding]:
    """Dims that stand still in training and move in the held-out episodes."""
    found, least = [], case.config.normalize.min_range
    for key, x in case.numbers.items():
        held = case.val.columns.get(key)
        if held is None or not len(held):
            continue
        away = np.abs(held - x.mean(0)).max(0)
        dims = np.flatnonzero((np.ptp(x, axis=0) < least) & (away > least))
        if len(dims):
            reason = f"constant in training, but not in the held-out episodes: {named(key, dims)}"
            remedy = "train on episodes in which that moves: the network has never seen it"
            found.append(Finding("warning", "moves_later", reason, remedy))
    return found


def outliers(case: Case) -> list[Finding]:
    """Single numbers far outside of what a dim usually is."""
    lines = check.outliers(case.numbers, case.train.ends, case.labels)
    return [Finding("warning", "outliers", *line.rsplit(": ", 1)) for line in lines]


def heavy_tails(case: Case) -> list[Finding]:
    """Dims of which "limits" squeezes nearly all steps into a sliver of [-1, 1]."""
    found = []
    for key, x in numbers_learned(case).items():
        if mode(case, key) != "limits":
            continue
        low, high = np.quantile(x, [0.01, 0.99], axis=0)
        full, usual = np.ptp(x, axis=0), high - low
        heavy = (usual > 0) & (full > HEAVY * usual) & (full < check.FAR * usual)
        dims = np.flatnonzero(heavy & ~fixed(case, key))
        if not len(dims):
            continue
        d = dims[np.argmax(full[dims] / usual[dims])]
        reason = (
            f"98 % of {named(key, dims)} lie within a small part of the range: of "
            f"{key}[{d}] in [{low[d]:.4g}, {high[d]:.4g}], of [{x[:, d].min():.4g}, "
            f"{x[:, d].max():.4g}] in all"
        )
        remedy = f"look at the extremes; if they are no part of the task, {mode_key(key)}=quantile"
        found.append(Finding("warning", "heavy_tails", reason, remedy))
    return found


def flattened(case: Case) -> list[Finding]:
    """Dims that move, which "quantile" takes for constants: a gripper that closes rarely."""
    found, least = [], case.config.normalize.min_range
    for key, x in numbers_learned(case).items():
        if mode(case, key) != "quantile":
            continue
        q = case.config.normalize.quantile
        low, high = np.quantile(x, [q, 1 - q], axis=0)
        flat = (high - low < least) & (np.ptp(x, axis=0) >= least)
        dims = np.flatnonzero(flat & ~fixed(case, key))
        if len(dims):
            reason = f"'quantile' sees constants, but some steps differ: {named(key, dims)}"
            remedy = f"{mode_key(key)}=limits"
            found.append(Finding("warning", "flattened", reason, remedy))
    return found


def beyond_units(case: Case) -> list[Finding]:
    """Keys that are still in the hundreds after normalization."""
    found = []
    for key, x in numbers_learned(case).items():
        most = np.abs(network(case, key, np.stack([x.min(0), x.max(0)]))).max(0)
        dims = np.flatnonzero(most > BEYOND)
        if not len(dims):
            continue
        d = dims[np.argmax(most[dims])]
        reason = (
            f"{named(key, dims)} reach the network beyond ±{BEYOND:g}: {key}[{d}] up to "
            f"{most[d]:.4g}, normalized by {mode(case, key)!r}"
        )
        remedy = f"{mode_key(key)}=limits, which gives [-1, 1]"
        found.append(Finding("warning", "beyond_units", reason, remedy))
    return found


def switches(case: Case) -> list[Finding]:
    """Action dims of two values, such as a gripper's: what "limits" is right for."""
    dims = np.flatnonzero(two_valued(case.action))
    if not len(dims):
        return []
    fine = mode(case, ACTION) == "limits"
    values = listed([f"{x:g}" for x in np.unique(case.action[:, dims[0]])])
    reason = f"two values only ({values}), as of a gripper: {named(ACTION, dims)}"
    remedy = (
        "nothing: limits put them at -1 and 1, and the sampler's clip keeps them there"
        if fine
        else f"{mode_key(ACTION)}=limits puts them at -1 and 1, where the sampler's clip keeps them"
    )
    return [Finding("note", "switches", reason, remedy)]


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
        f"{named(ACTION, dims)} jump: {len(rows)} steps are more than {JUMP:g} times the 99th "
        f"percentile, the first {x[rows[0], d]:.4g} to {x[rows[0] + 1, d]:.4g} of "
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


RULES = (
    *(unreadable, constant, moves_later, outliers, heavy_tails, flattened, beyond_units),
    *(switches, wraps, jumps, quaternions),
)
