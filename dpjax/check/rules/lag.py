"""Rules about which step's state belongs to an action: lag, and the future as an observation."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from dpjax.check.context import Context, Finding, describe_dims, is_binary
from dpjax.check.rules import actions
from dpjax.core.types import ACTION

SHIFTS = range(-2, 4)  # steps from an action to the state that is compared with it; 1 is right
BETTER = 0.8  # a shift's unexplained share must be below this share of that of shift 1
MIN_STEPS = 100  # with fewer steps, two shifts cannot be distinguished
MAX_STEPS = 20_000  # steps that are compared; of more, every k-th
AHEAD = range(1, 4)  # steps by which an observation may be ahead of another column
EQUAL = 0.99  # share of equal steps, or of equal episodes, above which one copies the other


def state_lag(context: Context) -> list[Finding]:
    """Finds states that were recorded after the action of their step was executed.

    Why: the action of step t leads to the state of step t + 1. If the state of step t shows its
    effect already, the policy learns to repeat what it sees, and is a step late on the robot.
    Remedy: shift the actions; convert the data again, with each state read before its action.
    """
    findings = []
    # Targets and changes are looked at apart: a gripper may be a target beside velocities.
    # An exact copy of the state is another finding, with another remedy.
    copied = any(x.severity == "warning" for x in actions.copied_observation(context))
    for kind, dims, unexplained in _shifts(context):
        best = SHIFTS[int(np.argmin(unexplained))]
        right = unexplained[SHIFTS.index(1)]
        if best == 1 or min(unexplained) > BETTER * right or (copied and kind == "value"):
            continue
        shares = ", ".join(f"{shift:+d}: {x:.2g}" for shift, x in zip(SHIFTS, unexplained))
        what = "the state" if kind == "value" else "the change that leads to the state"
        compared = (
            f"{describe_dims(ACTION, dims)} of step t agrees best with {what} of step "
            f"t{best:+d} (share that is not explained at each shift: {shares})"
        )
        if best > 1:
            reason = f"{compared}: the robot follows {best} steps later"
            remedy = "nothing if the robot is that slow; otherwise check how the columns are paired"
            findings.append(Finding("note", "state_lag", reason, remedy))
            continue
        late = 1 - best
        reason = (
            f"{compared}, not t+1: the state is that after its action, "
            f"{late} step{'s' if late > 1 else ''} late"
        )
        remedy = (
            "read the state before the action is sent, or convert again with "
            f"--shift-actions {late}, which pairs each state with the action of then"
        )
        findings.append(Finding("warning", "state_lag", reason, remedy))
    return findings


class _Match(NamedTuple):
    """How an action dim correlates with an observed dim, [S] at each shift.

    value, change: with the state of step t + shift, and with the change that leads to it.
    """

    value: np.ndarray
    change: np.ndarray


def _shifts(context: Context) -> Iterator[tuple[str, list[int], list[float]]]:
    """For targets ("value") and for changes: their action dims, and what each shift leaves.

    Yields (kind, action dims, share [S] of the action that is not explained at each shift).
    """
    matches = _match(context)
    # As in `actions.action_type`, each dim is a target or a change, or neither.
    values = {d: m.value for d, m in matches.items() if _is_value(m)}
    changes = {d: m.change for d, m in matches.items() if d not in values and _is_change(m)}
    for kind, group in (("value", values), ("change", changes)):
        if group:
            # 1 - r^2, where r is at least 0: an opposite motion explains nothing.
            r = np.maximum(np.stack(list(group.values())), 0)  # [n, S]
            yield kind, list(group), list((1 - r**2).mean(0))


def _is_value(match: _Match) -> bool:
    """Whether actions are targets: `actions.action_type`, at whatever shift."""
    return match.value.max() > max(actions.CORRELATION, match.change.max())


def _is_change(match: _Match) -> bool:
    """Whether actions are changes."""
    best = match.change.max()
    return best > actions.CHANGE_CORRELATION and best > match.value.max() + actions.MARGIN


def _match(context: Context) -> dict[int, _Match]:
    """{action dim: its best match}; no constant dims, and none with two values only."""
    train = context.train
    # Steps [n] that have all shifts in their own episode, and a step before the first of them.
    number = np.arange(train.ends[-1]) - np.repeat(train.starts, train.lengths)
    left = np.repeat(train.lengths, train.lengths) - number
    steps = np.flatnonzero((number > -SHIFTS[0]) & (left > SHIFTS[-1]))
    if len(steps) < MIN_STEPS:
        return {}
    steps = steps[:: -(-len(steps) // MAX_STEPS)]
    dims = np.flatnonzero((np.ptp(context.action, axis=0) > 0) & ~is_binary(context.action))
    action = context.action[steps][:, dims]  # [n, d]
    matches: dict[int, _Match] = {}
    # Each action dim keeps the observed dim with which it correlates best at any shift.
    for x in context.observed.values():
        # [S, d, D]: correlations at each shift.
        value = np.stack([actions.correlation(action, x[steps + k]) for k in SHIFTS])
        change = np.stack(
            [actions.correlation(action, x[steps + k] - x[steps + k - 1]) for k in SHIFTS]
        )
        best = np.maximum(value.max(0), change.max(0)).argmax(1)  # [d]
        for i, (d, j) in enumerate(zip(dims, best)):
            match = _Match(value[:, i, j], change[:, i, j])
            if int(d) not in matches or _largest(match) > _largest(matches[int(d)]):
                matches[int(d)] = match
    return matches


def _largest(match: _Match) -> float:
    """The larger of the two correlations, at the best shift."""
    return float(max(match.value.max(), match.change.max()))


def future_observed(context: Context) -> list[Finding]:
    """Finds observations that show what comes later: the episode's end, or a later step.

    Why: they predict the action almost perfectly, and on the robot nobody knows them.
    Remedy: leave the column out; goals that are meant are set by config.data.goals.
    """
    findings = []
    for key, x in context.observed.items():
        # A hindsight goal that the config asks for is meant.
        if key in context.config.data.goals:
            continue
        others = {name: y for name, y in context.numbers.items() if name != key}
        why = _end_of_episode(context, x, others) or _later_step(context, x, others)
        if not why:
            continue
        dims, reason = why
        remedy = (
            f"leave {key} out of config.data.columns (list the others there); a goal that is meant "
            "belongs in config.data.goals"
        )
        columns = dict(context.config.data.columns)
        columns.pop(key, None)
        changes = (f"config.data.columns={columns}",)
        reason = f"{describe_dims(key, dims)} {reason}: nobody knows it on the robot"
        findings.append(Finding("warning", "future_observed", reason, remedy, changes))
    return findings


def _end_of_episode(context, x, others):
    """(dims, reason) if dims of x [N, D] show an episode's last state in each of its steps."""
    starts = context.train.starts
    ends = context.train.ends
    if len(ends) < 3:
        return None
    # [E, D]: constant within the episode, but not over all of them.
    low = np.minimum.reduceat(x, starts, axis=0)
    high = np.maximum.reduceat(x, starts, axis=0)
    ranges = np.ptp(x, axis=0)
    fixed = ((high - low) <= actions.TOLERANCE * ranges).mean(0) > EQUAL
    dims = np.flatnonzero(fixed & (ranges > 0))
    for name, y in others.items():
        # A dim that is the same in the first and the last step of all episodes shows no future.
        moves = np.abs(y[ends - 1] - y[starts]).max(0) > actions.TOLERANCE * np.ptp(y, axis=0)
        distance = np.abs(x[starts][:, dims, None] - y[ends - 1][:, None, :])  # [E, d, D']
        equal = (distance <= actions.TOLERANCE * ranges[dims, None]).mean(0) > EQUAL
        found = (equal & moves).any(1)
        if found.any():
            return dims[found], f"is in every step what {name} is at the end of the episode"
    return None


def _later_step(context, x, others):
    """(dims, reason) if dims of x [N, D] equal another column's a few steps later."""
    train = context.train
    number = np.arange(train.ends[-1]) - np.repeat(train.starts, train.lengths)
    left = np.repeat(train.lengths, train.lengths) - number
    steps = np.flatnonzero(left > AHEAD[-1])
    if len(steps) < MIN_STEPS:
        return None
    steps = steps[:: -(-len(steps) // MAX_STEPS)]
    ranges = np.ptp(x, axis=0)
    moving = np.flatnonzero((ranges > 0) & ~is_binary(x))
    now = x[steps][:, moving]  # [n, d]
    tolerance = actions.TOLERANCE * ranges[moving]
    for name, y in others.items():
        for e in np.flatnonzero((np.ptp(y, axis=0) > 0) & ~is_binary(y)):
            # Share [d] of steps at which both are equal, at shift 0 and at later ones.
            share = [
                (np.abs(now - y[steps + k, e, None]) <= tolerance).mean(0) for k in (0, *AHEAD)
            ]
            for k in AHEAD:
                # What rests most of the time is equal at every shift.
                found = (share[k] > EQUAL) & (share[k] > share[0] + 1 - EQUAL)
                if found.any():
                    return moving[found], f"is {name}[{e}] of step t+{k}"
    return None
