"""Rules about motion from step to step: angles that wrap, jumps, quaternions."""

import numpy as np

from dpjax.check.context import (
    Context,
    Finding,
    count,
    describe_dims,
    describe_step,
    is_binary,
    leave_out,
    recorded_rotations,
    step_sizes,
)
from dpjax.check.rules import edges
from dpjax.core.types import ACTION

JUMP = 10.0  # times the 99th percentile of a dim's changes; teleoperation does not move faster
JUMP_RANGE = 0.25  # share of a dim's range; smaller jumps are noise of a dim that hardly moves
TURNS = {"radians": 2 * np.pi, "degrees": 360.0}
WRAP = 0.15  # share of a turn; a change within this distance of a whole turn may be a wrap
USUAL = 3.0  # times the 99th percentile of the other changes; a wrap minus the turn is smaller
SMALL = 0.02  # share of a turn; a wrap minus the turn may always be this large
NEAR = 0.05  # share of a turn; a command is this close to the state that it leads to
NEARLY_ALL = 0.99  # share of the steps at which it is
UNIT = 1e-2  # |length - 1| of a quaternion; more is not explained by rounding


def angle_wraps(context: Context) -> list[Finding]:
    """Finds angles that jump by a whole turn between two steps.

    Why: 359 and 1 degrees are close, but to a network the two numbers are far apart (Zhou et al.
    2019).
    Remedy: sine and cosine instead of the angle, or a rotation in the representation.
    """
    findings = []
    for key, x in context.numbers.items():
        for unit, turn in TURNS.items():
            wraps = _whole_turns(context, x, turn) & ~recorded_rotations(context, key)
            dims = np.flatnonzero(wraps.any(0))  # dims that wrap somewhere
            if not len(dims):
                continue
            # argmax returns the first step at which any of the dims wraps.
            first = describe_step(context, int(np.argmax(wraps[:, dims].any(1))))
            low, high = _unwrapped(context, x[:, dims], turn)
            reason = (
                f"an angle in {unit} that wraps: {describe_dims(key, dims)}, {int(wraps.sum())} "
                f"jumps of a whole turn, the first at {first}; without them it runs from "
                f"{low:.4g} to {high:.4g}"
            )
            remedy = (
                "replace it by its sine and cosine: to a network the two ends of the turn are "
                "far apart (whole rotations: config.representation.layouts)"
            )
            findings.append(Finding("warning", "angle_wraps", reason, remedy))
    return findings


def _whole_turns(context, x, turn):
    """bool [N - 1, D]: whether a change is a usual one plus or minus a whole turn."""
    moved = step_sizes(context, x)  # [N - 1, D]
    wraps = np.abs(moved - turn) < WRAP * turn
    # An angle that wraps has a range of at most about one turn. A binary dim may jump by 2 pi too.
    angle = (np.ptp(x, axis=0) < (1 + WRAP) * turn) & ~is_binary(x) & wraps.any(0)
    for d in np.flatnonzero(angle):
        # After subtracting the turn, the change must have the usual size.
        usual = np.quantile(moved[~wraps[:, d], d], 0.99)
        # An angle that mostly rests has no usual change; then a small one counts.
        wraps[:, d] &= np.abs(moved[:, d] - turn) < max(USUAL * usual, SMALL * turn)
    return wraps & angle


def _unwrapped(context, x, turn):
    """The lowest and the highest value of the angles x [N, D] when they go on beyond the turn."""
    # Episodes are unwrapped one by one: nothing moves from one to the next.
    parts = np.split(x.astype(np.float64), context.train.ends[:-1])
    unwrapped = [np.unwrap(part, axis=0, period=turn) for part in parts]
    return min(part.min() for part in unwrapped), max(part.max() for part in unwrapped)


def turns_apart(context: Context) -> list[Finding]:
    """Finds commanded angles that leave the turn in which the observed angle wraps.

    Why: the command is the sum of an angle and a change, and was never wrapped: at 3.3 it leads to
    a state of -2.98. The network has to learn two commands for one state.
    Remedy: wrap the command as the state is.
    """
    pairs = context.same_episode
    action = context.action[:-1][pairs]
    findings = []
    for key, x in context.observed.items():
        # Rotations of the config are no single angles.
        angles = np.flatnonzero(~recorded_rotations(context, key) & ~is_binary(x))
        for unit, turn in TURNS.items():
            # Dims that can be angles at all: they go around for the most part.
            wide = [j for j in angles if 0.5 * turn < np.ptp(x[:, j]) < (1 + WRAP) * turn]
            for d in np.flatnonzero(np.ptp(context.action, axis=0) > 0.5 * turn):
                for j in wide:
                    gap = action[:, d] - x[1:, j][pairs]
                    whole = np.round(gap / turn)
                    near = np.abs(gap - whole * turn) < NEAR * turn
                    # Nearly equal but for whole turns, of which there are some.
                    if near.mean() < NEARLY_ALL or not whole[near].any():
                        continue
                    reason = (
                        f"{ACTION}[{d}] and {key}[{j}] are the same angle in {unit}, but a whole "
                        f"turn apart at {count(int((whole != 0).sum()), 'step')}: the command "
                        f"runs from {action[:, d].min():.4g} to {action[:, d].max():.4g}"
                    )
                    remedy = (
                        "wrap the command as the state is, or store sine and cosine of both, when "
                        "you convert the data"
                    )
                    findings.append(Finding("warning", "turns_apart", reason, remedy))
    return findings


def action_jumps(context: Context) -> list[Finding]:
    """Finds changes of the action that are far larger than usual.

    Why: tracking was lost, or two recordings were joined to one episode. A robot cannot follow
    such a jump, and the policy would learn to output it.
    Remedy: cut the episodes there.
    """
    x = context.action
    moved = step_sizes(context, x)  # [N - 1, D]
    usual = np.quantile(moved, 0.99, axis=0)  # [Da]
    # Far above the dim's usual changes, and a large share of its range.
    far = (moved > JUMP * usual) & (moved > JUMP_RANGE * np.ptp(x, axis=0)) & (usual > 0)
    for turn in TURNS.values():  # wraps are reported by `angle_wraps`
        far &= ~_whole_turns(context, x, turn)
    far &= ~edges.at_dummies(context, x)[:, None]
    dims = np.flatnonzero(far.any(0) & ~is_binary(x))
    if not len(dims):
        return []
    steps = np.flatnonzero(far[:, dims].any(1))  # steps at which any of these dims jumps
    first = steps[0]
    # The message describes the first jump: its step, and the first dim that jumps there.
    d = dims[np.argmax(far[first, dims])]
    reason = (
        f"{describe_dims(ACTION, dims)} jump: {count(len(steps), 'step')} of more than {JUMP:g} "
        f"times the 99th percentile, the first from {x[first, d]:.4g} to {x[first + 1, d]:.4g} "
        f"of {ACTION}[{d}] after {describe_step(context, first)}"
    )
    episodes = np.unique(np.searchsorted(context.train.ends, steps, side="right"))
    leave, changes = leave_out(context, episodes)
    remedy = f"cut the episodes there, or {leave}; a robot cannot follow, but a policy would try"
    return [Finding("warning", "action_jumps", reason, remedy, changes)]


def quaternions(context: Context) -> list[Finding]:
    """Finds quaternions whose length is not 1, or whose sign flips within an episode.

    Why: q and -q are the same rotation, but two different inputs to a network (Zhou et al. 2019).
    Remedy: declare the rotation in the config, so that the network sees its 6-D form.
    """
    findings = []
    for key, x in context.numbers.items():
        # A declared rotation is converted to 6-D before the network sees it.
        if recorded_rotations(context, key).any():
            continue
        for d in _quaternion_dims(key, x):
            # UNIT is more than the error of rounding to float32 or to a few decimals.
            q = x[:, d : d + 4]  # [N, 4]
            dims = describe_dims(key, range(d, d + 4))
            error = np.abs(np.linalg.norm(q, axis=1) - 1)
            if error.max() > UNIT:
                reason = f"{dims} is not a unit quaternion: its length is off by {error.max():.3g}"
                remedy = "divide it by its length when you convert the data"
                findings.append(Finding("warning", "quaternions", reason, remedy))
            # The scalar product of consecutive quaternions is about 1, or about -1 after a flip.
            flips = ((q[:-1] * q[1:]).sum(1) < -0.5) & context.same_episode
            if flips.any():
                first = describe_step(context, int(np.argmax(flips)))
                reason = f"quaternion {dims} flips its sign {flips.sum()} times, first at {first}"
                remedy = (
                    f"declare these dims in config.representation.layouts.{key} as quaternion_wxyz "
                    "or quaternion_xyzw: in 6-D, which the network then sees, q and -q are equal"
                )
                findings.append(Finding("warning", "quaternions", reason, remedy))
    return findings


def _quaternion_dims(key, x):
    """The first dim of each quaternion in x [N, D], recognized by the key's name or by length 1."""
    if "quat" in key.lower() and x.shape[1] == 4:
        return [0]
    first_dims = []
    # Four consecutive dims whose length is 1 at every step, and of which at least two move.
    squares = x.astype(np.float64) ** 2
    d = 0
    while d + 4 <= x.shape[1]:
        unit = np.abs(squares[:, d : d + 4].sum(1) - 1).max() < 2e-3
        moving = (np.ptp(x[:, d : d + 4], axis=0) > 1e-3).sum() >= 2
        if unit and moving:
            first_dims.append(d)
            d += 4  # quaternions do not overlap
        else:
            d += 1
    return first_dims
