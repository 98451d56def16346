"""Rules about what an action is, and what becomes of it in the sampler."""

from typing import NamedTuple

import numpy as np

from dpjax.check.context import (
    Case,
    Finding,
    listed,
    mode,
    mode_key,
    named,
    network,
    steps,
    two_valued,
)
from dpjax.core.types import ACTION

CUT = 0.025  # share of a dim's steps outside of the clip: quantile's own 2 x 1 %, and a little
ALIKE = 0.9  # correlation above which two signals are one: measured .99 on Push-T
CHANGE = 0.7  # the same of a change, in which there is more noise
CLEARER = 0.1  # by which one reading must beat the other
SAME = 1e-5  # of a dim's range: what rounding to float32 leaves of equal numbers
SAME_SHARE = 0.99  # of the steps
STILL = 0.005  # of a dim's range a step: slower is standing
OFFSET = 0.03  # of a dim's range: a leader arm that is so far from its follower is miscalibrated
STILL_STEPS = 50  # fewer say nothing about an offset


class Match(NamedTuple):
    """The observation dim that an action dim is most like.

    key, dim: of the observation. absolute: correlation of the action with its next value;
    change: with its change to the next value.
    """

    key: str
    dim: int
    absolute: float
    change: float


def clipped(case: Case) -> list[Finding]:
    """Recorded actions that the sampler cannot give, since it clips x_0."""
    clip = case.config.sampler.clip
    outside = (np.abs(network(case, ACTION, case.learned[ACTION])) > clip + 1e-4).mean(0)  # [Da]
    dims = np.flatnonzero(outside > CUT)
    if not len(dims):
        return []
    d = dims[np.argmax(outside[dims])]
    reason = (
        f"config.sampler.clip={clip:g} cuts {outside[d]:.1%} of {ACTION}[{d}] off as normalized by "
        f"{mode(case, ACTION)!r}: the policy can never do that ({named(ACTION, dims)})"
    )
    remedy = f"{mode_key(ACTION)}=limits, or config.sampler.clip=inf"
    return [Finding("warning", "clipped", reason, remedy)]


def answer_observed(case: Case) -> list[Finding]:
    """An observation that is read from where the action is read from."""
    columns = case.config.data.columns
    same = [key for key, path in columns.items() if key != ACTION and path == columns.get(ACTION)]
    if not same:
        return []
    reason = f"config.data.columns.{same[0]} and .{ACTION} are both {columns[ACTION]!r}"
    remedy = "observe something else: the robot does not know the action before it has been chosen"
    return [Finding("error", "answer_observed", reason, remedy)]


def copies(case: Case) -> list[Finding]:
    """Actions that are the observation itself, of this step or of the next."""
    found = []
    moving = np.flatnonzero(np.ptp(case.action, axis=0) > 0)
    tolerance = SAME * np.ptp(case.action, axis=0)
    for key, x in case.observed.items():
        if x.shape[1] < case.action.shape[1] or not len(moving):
            continue
        now = _equal_share(case.action, x, tolerance)[moving]
        later = _equal_share(case.action[:-1][case.inside], x[1:][case.inside], tolerance)[moving]
        # Of what hardly moves both are true; then it is the next state that was copied.
        if now.min() > SAME_SHARE and now.mean() >= later.mean():
            reason = f"the action is {key} of the same step: a policy that copies it stands still"
            remedy = "record what was commanded, or take the next step's state as the action"
            found.append(Finding("warning", "copies", reason, remedy))
        elif later.min() > SAME_SHARE:
            reason = f"the action is {key} of the next step, not a command that led there"
            remedy = (
                "fine where the robot gets where it is sent within a step; one that lags or "
                "carries a load falls short: then record the commands"
            )
            found.append(Finding("note", "copies", reason, remedy))
    return found


def _equal_share(action, x, tolerance):
    """[Da]: of each action dim the share of steps that equal that dim of x [N, D]."""
    if not len(action):
        return np.zeros(action.shape[1])
    return (np.abs(action - x[:, : action.shape[1]]) <= tolerance).mean(0)


def matches(case: Case) -> dict[int, Match]:
    """{action dim: what it is most like}, of the dims that take more than two values."""
    inside, found = case.inside, {}
    action = case.action[:-1][inside]
    dims = np.flatnonzero((np.ptp(case.action, axis=0) > 0) & ~two_valued(case.action))
    for key, x in case.observed.items():
        later, change = x[1:][inside], np.diff(x, axis=0)[inside]
        absolute, moved = _correlation(action, later), _correlation(action, change)
        for d in dims:
            best = np.argmax(np.maximum(absolute[d], moved[d]))
            match = Match(key, int(best), float(absolute[d, best]), float(moved[d, best]))
            if d not in found or max(match[2:]) > max(found[d][2:]):
                found[int(d)] = match
    return found


def _correlation(a, b):
    """[Da, D] of the columns of a [N, Da] and b [N, D]; 0 for a constant."""
    if len(a) < 3:
        return np.zeros((a.shape[1], b.shape[1]))
    scaled = []
    for x in (a, b):
        x = x.astype(np.float64) - x.mean(0, dtype=np.float64)
        length = np.linalg.norm(x, axis=0)
        scaled.append(x / np.where(length > 1e-12, length, np.inf))
    return scaled[0].T @ scaled[1]


def meaning(case: Case) -> list[Finding]:
    """Whether actions are places to go to, or changes of place."""
    pairs = matches(case)
    places = {d: m for d, m in pairs.items() if m.absolute > max(ALIKE, m.change)}
    changes = {d: m for d, m in pairs.items() if m.change > max(CHANGE, m.absolute + CLEARER)}
    found = []
    kinds = (
        (places, "absolute", "a place to go to", "the next"),
        (changes, "deltas", "a change of place", "the change of"),
    )
    for group, word, what, like in kinds:
        if group:
            of = [f"{m.key}[{m.dim}] ({max(m[2:]):.2f})" for m in group.values()]
            dims = named(ACTION, list(group))
            reason = f"{dims} are {word}, by correlation with {like} {listed(of)}"
            remedy = f"make sure that the robot takes each as {what}"
            found.append(Finding("note", "meaning", reason, remedy))
    relative = case.config.spaces.relative
    if relative and changes:
        reason = (
            f"config.spaces.relative={relative!r} takes actions from the pose, but "
            f"{named(ACTION, list(changes))} are changes already"
        )
        remedy = "config.spaces.relative=''"
        found.append(Finding("warning", "meaning", reason, remedy))
    return found


def offset(case: Case) -> list[Finding]:
    """Places that the robot does not reach where it stands still: leader and follower differ."""
    found = []
    standing = ~(steps(case, case.action) > STILL * np.ptp(case.action, axis=0)).any(1)
    for d, match in matches(case).items():
        if match.absolute < max(ALIKE, match.change):
            continue
        x = case.observed[match.key][:, match.dim : match.dim + 1]
        still = standing & ~(steps(case, x) > STILL * np.ptp(x)).any(1) & case.inside
        gap = (case.action[:-1, d] - x[:-1, 0])[still]
        if len(gap) < STILL_STEPS:
            continue
        if abs(gap.mean()) > max(OFFSET * np.ptp(x), 3 * gap.std()):
            reason = (
                f"where nothing moves, {ACTION}[{d}] is {gap.mean():+.4g} off {match.key}"
                f"[{match.dim}] (deviation {gap.std():.2g}, {len(gap)} steps)"
            )
            remedy = "calibrate the leader and the follower, and take the offset out of the data"
            found.append(Finding("warning", "offset", reason, remedy))
    return found


RULES = (clipped, answer_observed, copies, meaning, offset)
