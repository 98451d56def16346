"""Rules about actions: what they mean, and how the sampler changes them."""

from typing import NamedTuple

import numpy as np

from dpjax.check.context import (
    Context,
    Finding,
    describe_dims,
    enumerate_some,
    is_binary,
    normalization,
    normalization_key,
    normalize,
    step_sizes,
)
from dpjax.core.types import ACTION

CLIPPED_SHARE = 0.025  # share of a dim's steps; "quantile" by itself leaves 2 x 1 % outside
CORRELATION = 0.9  # above this, two signals count as the same; Push-T's actions have 0.99
CHANGE_CORRELATION = 0.7  # the same for changes, which are noisier than values
MARGIN = 0.1  # a change must correlate better than the value itself by this much
TOLERANCE = 1e-5  # share of a dim's range: float32 rounding makes equal numbers differ this much
EQUAL_SHARE = 0.99  # share of equal steps above which the action counts as a copy
STILL = 0.005  # share of a dim's range per step; slower motion counts as standing still
OFFSET = 0.03  # share of a dim's range; a larger gap between leader and follower is miscalibration
MIN_STILL_STEPS = 50  # with fewer steps, an offset cannot be distinguished from noise


def clipped_actions(context: Context) -> list[Finding]:
    """Finds recorded actions that the sampler cannot produce.

    Why: the sampler clips the predicted x_0 to ±config.sampler.clip at every step, as the
    paper's code does, so the policy never outputs an action beyond it.
    Remedy: "limits", which maps every action into [-1, 1], or no clip.
    """
    clip = context.config.sampler.clip
    actions = normalize(context, ACTION, context.represented[ACTION])
    # 1e-4 of tolerance: by rounding, "limits" maps the largest actions slightly beyond 1.
    outside = (np.abs(actions) > clip + 1e-4).mean(0)  # [Da], share of the steps
    dims = np.flatnonzero(outside > CLIPPED_SHARE)
    if not len(dims):
        return []
    # The message has the share of the worst dim, and lists all dims.
    d = dims[np.argmax(outside[dims])]
    reason = (
        f"config.sampler.clip={clip:g} cuts off {outside[d]:.1%} of {ACTION}[{d}], normalized by "
        f"{normalization(context, ACTION)!r}: the policy can never output these "
        f"({describe_dims(ACTION, dims)})"
    )
    remedy = f"set {normalization_key(context, ACTION)}=limits, or config.sampler.clip=inf"
    changes = (f"{normalization_key(context, ACTION)}=limits",)
    return [Finding("warning", "clipped_actions", reason, remedy, changes)]


def action_observed(context: Context) -> list[Finding]:
    """Finds an observation that is read from the action's own column.

    Why: the robot does not know the action before the policy has chosen it.
    Remedy: observe another column.
    """
    # Columns are compared by their path in the data; the name does not matter.
    columns = context.config.data.columns
    same = [key for key, path in columns.items() if key != ACTION and path == columns.get(ACTION)]
    if not same:
        return []
    reason = f"config.data.columns.{same[0]} and .{ACTION} are both {columns[ACTION]!r}"
    remedy = "observe another column: the robot does not know the action before it is chosen"
    return [Finding("error", "action_observed", reason, remedy)]


def copied_observation(context: Context) -> list[Finding]:
    """Finds actions that equal the observation of the same step or of the next one.

    Why: a policy that outputs the current state as its action stands still. The next state works
    as a target only if the robot reaches its target within one step.
    Remedy: record the commands.
    """
    findings = []
    action = context.action
    ranges = np.ptp(action, axis=0)  # [Da]
    moving = np.flatnonzero(ranges > 0)  # constant dims would equal constant observations
    tolerance = TOLERANCE * ranges
    pairs = context.same_episode  # bool [N - 1]
    for key, x in context.observed.items():
        # A copy is assumed to begin at dim 0 of the observation, which may have more dims.
        if x.shape[1] < action.shape[1] or not len(moving):
            continue
        now = _equal_share(action, x, tolerance)[moving]
        later = _equal_share(action[:-1][pairs], x[1:][pairs], tolerance)[moving]
        # If the state hardly moves, the action equals both; the larger mean share decides.
        if now.min() > EQUAL_SHARE and now.mean() >= later.mean():
            reason = f"the action is {key} of the same step: a policy that copies it stands still"
            remedy = "record the commands, or take the next step's state as the action"
            findings.append(Finding("warning", "copied_observation", reason, remedy))
        elif later.min() > EQUAL_SHARE:
            reason = f"the action is {key} of the next step, not the command that led there"
            remedy = (
                "fine if the robot reaches its target within one step; if it lags or carries a "
                "load, record the commands instead"
            )
            findings.append(Finding("note", "copied_observation", reason, remedy))
    return findings


def _equal_share(action, x, tolerance):
    """[Da]: for each action dim, the share of steps at which it equals the same dim of x [N, D]."""
    if not len(action):
        return np.zeros(action.shape[1])
    return (np.abs(action - x[:, : action.shape[1]]) <= tolerance).mean(0)


class Match(NamedTuple):
    """The observation dim that correlates best with an action dim.

    key, dim: which observation, and which of its dims.
    absolute: correlation of the action with the observation's next value.
    change: correlation of the action with the observation's change to its next value.
    """

    key: str
    dim: int
    absolute: float
    change: float

    @property
    def best(self) -> float:
        """The larger of the two correlations."""
        return max(self.absolute, self.change)


def match_observations(context: Context) -> dict[int, Match]:
    """{action dim: Match} for the action dims that move and have more than two values."""
    pairs = context.same_episode  # bool [N - 1]
    action = context.action[:-1][pairs]  # [n, Da], steps that have a next one
    dims = np.flatnonzero((np.ptp(context.action, axis=0) > 0) & ~is_binary(context.action))
    matches: dict[int, Match] = {}
    # Each action dim is compared with each observed dim, by value and by change. The observed dim
    # with the largest correlation is kept.
    for key, x in context.observed.items():
        absolute = correlation(action, x[1:][pairs])  # [Da, D]
        change = correlation(action, np.diff(x, axis=0)[pairs])  # [Da, D]
        for d in dims:
            best = int(np.argmax(np.maximum(absolute[d], change[d])))
            match = Match(key, best, float(absolute[d, best]), float(change[d, best]))
            if d not in matches or match.best > matches[d].best:
                matches[int(d)] = match
    return matches


def correlation(a, b):
    """[Da, D]: Pearson correlation of each column of a [N, Da] with each column of b [N, D].

    A constant column has the correlation 0 with all others.
    """
    if len(a) < 3:  # two points always lie on a line
        return np.zeros((a.shape[1], b.shape[1]))
    # Each column is scaled to mean 0 and length 1.
    scaled = []
    for x in (a, b):
        x = x.astype(np.float64) - x.mean(0, dtype=np.float64)
        length = np.linalg.norm(x, axis=0)  # [D]
        # A constant column is divided by infinity, which makes it 0.
        scaled.append(x / np.where(length > 1e-12, length, np.inf))
    return scaled[0].T @ scaled[1]  # scalar products of unit vectors are correlations


def action_type(context: Context) -> list[Finding]:
    """Determines by correlation whether actions are absolute targets or changes.

    Why: the robot must interpret actions as they were recorded. Besides,
    config.representation.relative subtracts the pose, which is wrong for actions that are changes
    already.
    Remedy: compare with the robot's interface; set relative='' for changes.
    """
    matches = match_observations(context)
    # A dim is in at most one of the two groups, and in neither if it correlates with nothing.
    absolute = {d: m for d, m in matches.items() if m.absolute > max(CORRELATION, m.change)}
    deltas = {
        d: m for d, m in matches.items() if m.change > max(CHANGE_CORRELATION, m.absolute + MARGIN)
    }
    findings = []
    for group, word, meaning, compared in (
        (absolute, "absolute", "a target to go to", "the next"),
        (deltas, "deltas", "a change", "the change of"),
    ):
        if not group:
            continue
        like = enumerate_some([f"{m.key}[{m.dim}] ({m.best:.2f})" for m in group.values()])
        dims = describe_dims(ACTION, list(group))
        reason = f"{dims} are {word}, by correlation with {compared} {like}"
        remedy = f"make sure that the robot executes each of them as {meaning}"
        findings.append(Finding("note", "action_type", reason, remedy))
    # Absolute actions minus the pose are changes. There is no pose in a change to subtract.
    relative = context.config.representation.relative
    if relative and deltas:
        reason = (
            f"config.representation.relative={relative!r} subtracts the pose from the actions, "
            f"but {describe_dims(ACTION, list(deltas))} are changes already"
        )
        remedy = "set config.representation.relative=''"
        changes = ("config.representation.relative=",)
        findings.append(Finding("warning", "action_type", reason, remedy, changes))
    return findings


def leader_offset(context: Context) -> list[Finding]:
    """Finds a constant gap between action and state while nothing moves.

    Why: a constant gap between a leader arm and its follower is a miscalibration, and the
    policy learns it.
    Remedy: calibrate the arms, and subtract the offset from the recorded data.
    """
    findings = []
    # bool [N - 1]: steps from which no action dim moves.
    action = context.action
    still_action = ~(step_sizes(context, action) > STILL * np.ptp(action, axis=0)).any(1)
    # Only absolute actions have a target that can be missed.
    for d, match in match_observations(context).items():
        if match.absolute < max(CORRELATION, match.change):
            continue
        x = context.observed[match.key][:, match.dim : match.dim + 1]  # [N, 1]
        still_state = ~(step_sizes(context, x) > STILL * np.ptp(x)).any(1)
        still = still_action & still_state & context.same_episode
        gap = (action[:-1, d] - x[:-1, 0])[still]  # [n], in the units of the data
        if len(gap) < MIN_STILL_STEPS:
            continue
        # The gap is large compared with the range, and nearly the same at all of these steps.
        if abs(gap.mean()) > max(OFFSET * np.ptp(x), 3 * gap.std()):
            reason = (
                f"while nothing moves, {ACTION}[{d}] differs from {match.key}[{match.dim}] by "
                f"{gap.mean():+.4g} (deviation {gap.std():.2g}, {len(gap)} steps)"
            )
            remedy = "calibrate leader and follower, and subtract the offset from the data"
            findings.append(Finding("warning", "leader_offset", reason, remedy))
    return findings
