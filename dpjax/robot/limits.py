"""Limits of actions, fitted to the demonstrations and checked before an action reaches the robot.

The order matters. Comparisons with NaN are false, and `np.clip` passes NaN on, so chunks are
checked for finite numbers first. This is not a safety-rated stop: it finds a policy's mistakes, not
a fault of the machine.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from dpjax.core.errors import UserError
from dpjax.data import frames
from dpjax.data.episodes import Episodes

QUANTILE = 0.999  # of the steps between two actions: the rest are single jumps of a recording
# How far an action may go beyond what was demonstrated: a share of its range, and a factor of its
# largest step. A policy's chunks meet with jumps that no demonstration has.
RANGE_SLACK = 0.05
STEP_SLACK = 2.0
# An action that was constant in the demonstrations comes out of float32 arithmetic with rounding
# errors: this share of its magnitude is always allowed.
FLOOR = 1e-4


@dataclasses.dataclass(frozen=True)
class Limits:
    """What the demonstrations did, in the units of the data.

    low, high: [Da], the range of each action.
    step: [Da], the 99.9 % quantile of |a_t - a_(t-1)| of each action within episodes.
    observations: {name: (low [D], high [D])}, the range of each observation that is numbers.
    """

    low: np.ndarray
    high: np.ndarray
    step: np.ndarray
    observations: dict[str, tuple[np.ndarray, np.ndarray]]


def fit(episodes: Episodes, action: str = "action") -> Limits:
    """The limits of the demonstrations. action: the name of the action's column."""
    # In float64: differences of large numbers lose digits in float32.
    actions = np.asarray(episodes.columns[action], np.float64)
    # Differences within episodes: those from an episode to the next are left out.
    steps = np.abs(np.diff(actions, axis=0))
    is_inside = np.ones(len(steps), bool)
    is_inside[np.asarray(episodes.ends[:-1]) - 1] = False
    steps = steps[is_inside]
    numbers, _ = frames.split(episodes.columns)
    # Images have no range that means anything.
    ranges = {
        name: (np.min(x, axis=0).astype(np.float64), np.max(x, axis=0).astype(np.float64))
        for name, x in numbers.items()
        if name != action
    }
    return Limits(
        low=actions.min(0),
        high=actions.max(0),
        # "higher": a step that was demonstrated, not one between two of them.
        step=np.quantile(steps, QUANTILE, axis=0, method="higher")
        if len(steps)
        else 0 * actions[0],
        observations=ranges,
    )


def to_json(limits: Limits) -> dict[str, Any]:
    """The limits as numbers that JSON can hold."""
    return {
        "low": limits.low.tolist(),
        "high": limits.high.tolist(),
        "step": limits.step.tolist(),
        "observations": {
            name: [low.tolist(), high.tolist()] for name, (low, high) in limits.observations.items()
        },
    }


def from_json(content: Mapping[str, Any]) -> Limits:
    """The limits that `to_json` wrote. Raises KeyError or TypeError for anything else."""
    return Limits(
        *(np.asarray(content[name], np.float64) for name in ("low", "high", "step")),
        observations={
            name: (np.asarray(low, np.float64), np.asarray(high, np.float64))
            for name, (low, high) in content["observations"].items()
        },
    )


class Checked(NamedTuple):
    """Actions after the check.

    actions: [n, Da], clamped if that was asked for; None if they are refused.
    problems: one text per kind of problem, with the first place where it shows.
    """

    actions: np.ndarray | None
    problems: tuple[str, ...]


def check(
    limits: Limits | None, actions: np.ndarray, last: np.ndarray | None, *, clamp: bool = False
) -> Checked:
    """Checks the actions that are about to be executed.

    Args:
        limits: None checks for finite numbers only.
        actions: [n, Da].
        last: [Da], the action that was sent before them; None if there is none.
        clamp: bring actions back to the limits instead of refusing them. Numbers that are not
            finite are refused in any case.
    """
    actions = np.asarray(actions, np.float64)
    # 1. Finite numbers: everything below compares, and NaN passes every comparison.
    broken = np.argwhere(~np.isfinite(actions))
    if len(broken):
        step, dim = broken[0]
        count = f"{len(broken)} numbers are not finite, the first is"
        return Checked(None, (f"{count} action[{dim}] = {actions[step, dim]} in step {step}",))
    if limits is None:
        return Checked(actions, ())
    # 2. The range, with some slack.
    floor = FLOOR * np.maximum(np.abs(limits.low), np.abs(limits.high))
    slack = np.maximum(RANGE_SLACK * (limits.high - limits.low), floor)
    inside = np.clip(actions, limits.low - slack, limits.high + slack)
    problems = _differences(actions, inside, "beyond the demonstrated range")
    # 3. The step from each action to the next, beginning with the one that was sent last.
    slow = _slowed(inside, last, np.maximum(STEP_SLACK * limits.step, floor))
    problems += _differences(inside, slow, "further from the action before than demonstrated")
    if problems and not clamp:
        return Checked(None, problems)
    return Checked(slow, problems)


def _slowed(actions: np.ndarray, last: np.ndarray | None, step: np.ndarray) -> np.ndarray:
    """Actions [n, Da] that follow each other, and `last`, by at most `step` [Da]."""
    result = np.array(actions)
    before = result[0] if last is None else np.asarray(last, np.float64)
    # One after the other, since each depends on the one before.
    for i, action in enumerate(result):
        result[i] = np.clip(action, before - step, before + step)
        before = result[i]
    return result


def _differences(actions: np.ndarray, allowed: np.ndarray, what: str) -> tuple[str, ...]:
    """A text if the actions [n, Da] differ from what is allowed; () if they do not."""
    # The clip computes nothing new for actions inside, so equality is exact there.
    places = np.argwhere(actions != allowed)
    if not len(places):
        return ()
    step, dim = places[0]
    return (
        f"{len(places)} numbers are {what}, the first is action[{dim}] = "
        f"{actions[step, dim]:.4g} in step {step}, where {allowed[step, dim]:.4g} is allowed",
    )


def require_sizes(limits: Limits, action_dim: int) -> None:
    """Raises UserError if the limits are those of another robot."""
    if len(limits.low) != action_dim:
        raise UserError(
            f"limits of {len(limits.low)} action dims for a policy with {action_dim}.",
            argument="limits",
        )
