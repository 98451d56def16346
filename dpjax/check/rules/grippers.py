"""Rules about actions with few values, such as the command of a gripper."""

import numpy as np

from dpjax.check.context import (
    Context,
    Finding,
    count,
    describe_dims,
    describe_step,
    enumerate_some,
    is_binary,
    leave_out,
    normalization,
    normalization_key,
)
from dpjax.core.types import ACTION

RARE = 0.05  # share of the steps; values that are more frequent are meant
RARE_VALUES = 3  # more different ones are a gripper that travels between its two ends
SAMPLE = 2_000  # steps of the first look
USUAL = 0.02  # share of the steps that each of the two usual values has


def binary_actions(context: Context) -> list[Finding]:
    """Notes action dims with exactly two values, such as a gripper's.

    Why: "limits" maps the two values to -1 and 1, and the sampler's clip at ±1 keeps samples
    between them; other modes may map them anywhere.
    Remedy: normalize by "limits".
    """
    dims = np.flatnonzero(is_binary(context.action))
    if not len(dims):
        return []
    # The message has the values of the first such dim only.
    values = enumerate_some([f"{x:g}" for x in np.unique(context.action[:, dims[0]])])
    reason = f"two values only ({values}), as a gripper's: {describe_dims(ACTION, dims)}"
    changes: tuple[str, ...] = ()
    if normalization(context, ACTION) == "limits":
        remedy = "nothing: limits puts them at -1 and 1, where the sampler's clip keeps them"
    else:
        changes = (f"{normalization_key(context, ACTION)}=limits",)
        remedy = f"set {changes[0]}: it puts them at -1 and 1, where the sampler's clip keeps them"
    return [Finding("note", "binary_actions", reason, remedy, changes)]


def rare_values(context: Context) -> list[Finding]:
    """Finds dims with two values at nearly all steps, and rarely another one.

    Why: a gripper's command of 0 and 1 that is sometimes -1 or 0.5 was not recorded, or was
    averaged. "limits" then maps the two usual values to other places than -1 and 1.
    Remedy: replace the value by one of the two when you convert the data.
    """
    findings = []
    for key, x in context.numbers.items():
        # A count, say of contacts, has rare values too: only actions and grippers are looked at.
        if key != ACTION and "grip" not in key.lower():
            continue
        # Few dims pass the first look, at a part of the steps.
        for d in range(x.shape[1]):
            part = x[:: 1 + len(x) // SAMPLE, d]
            if len(np.unique(part)) > 2 + RARE_VALUES:
                continue
            values, numbers = np.unique(x[:, d], return_counts=True)
            order = np.argsort(-numbers, kind="stable")
            rare = order[2:]
            if not 0 < len(rare) <= RARE_VALUES or numbers[order[1]] < USUAL * len(x):
                continue
            # A value of which there are many is a third state of the gripper.
            if numbers[rare].sum() > RARE * len(x):
                continue
            usual = np.sort(values[order[:2]])
            steps = np.flatnonzero(np.isin(x[:, d], values[rare]))
            reason = (
                f"{describe_dims(key, [d])} is {usual[0]:g} or {usual[1]:g} at nearly all steps, "
                f"but {enumerate_some([f'{v:g}' for v in np.sort(values[rare])])} at "
                f"{count(len(steps), 'step')}, first {describe_step(context, steps[0])}"
            )
            episodes = np.unique(np.searchsorted(context.train.ends, steps, side="right"))
            leave, changes = leave_out(context, episodes)
            remedy = f"put {usual[0]:g} or {usual[1]:g} there when you convert the data, or {leave}"
            findings.append(Finding("warning", "rare_values", reason, remedy, changes))
    return findings
