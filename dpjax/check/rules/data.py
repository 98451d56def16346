"""Rules about the values of single columns, independent of their meaning."""

import re

import numpy as np

from dpjax.check.context import (
    Context,
    Finding,
    describe_dims,
    leave_out,
    normalization,
    normalization_key,
    normalize,
    represented_rotations,
    scaling_of,
)
from dpjax.core import normalizer as normalizers
from dpjax.core import scaling
from dpjax.core.types import ACTION
from dpjax.data import checks

# The change of a config inside a sentence.
_KEY = re.compile(r"config\.normalize\.min_range=\S+")
# Largest ratio of a dim's range to the range of its middle 98 %. It is about 2 for a Gaussian and
# 1 for a uniform distribution.
HEAVY = 10.0
# Largest normalized value: ten standard deviations, or ten times the range of "limits".
LARGE = 10.0


def bad_episodes(context: Context) -> list[Finding]:
    """Reports episodes with NaN, infinite or missing numbers.

    Why: training refuses them unless config.data.on_bad is "skip". The check has left them out.
    Remedy: repair the recordings, or train without them.
    """
    if not context.skipped:
        return []
    # `labels` has the episodes that were read, so both together are all episodes.
    refused = context.config.data.on_bad == "refuse"
    total = len(context.skipped) + len(context.labels)
    first = context.skipped[0].rstrip(".")
    reason = f"{len(context.skipped)} of {total} episodes cannot be used; the first: {first}"
    # An error only if training would refuse the data.
    if refused:
        remedy = "repair them, or set config.data.on_bad=skip to train without them"
        changes = ("config.data.on_bad=skip",)
        return [Finding("error", "bad_episodes", reason, remedy, changes)]
    remedy = "repair them: they are left out of training"
    return [Finding("warning", "bad_episodes", reason, remedy)]


def constant_dims(context: Context) -> list[Finding]:
    """Finds dims that do not move.

    Why: harmless in training, but if they move on the robot, the network sees values that it has
    never been trained on. If no dim of the action moves, there is nothing to learn.
    Remedy: record data in which they move.
    """
    still = {key: scaling_of(context, key).constant for key in context.represented_numbers}
    if still[ACTION].all():
        reason = "no dim of the action moves by more than 1e-6 of its size"
        remedy = "check config.data.columns.action: there is nothing to learn"
        return [Finding("error", "constant_dims", reason, remedy)]
    dims = [
        describe_dims(key, np.flatnonzero(flags)) for key, flags in still.items() if flags.any()
    ]
    if not dims:
        return []
    reason = f"constant over the training data: {', '.join(dims)}"
    remedy = (
        "nothing if they are constant on the robot too; otherwise record data in which they move"
    )
    return [Finding("note", "constant_dims", reason, remedy)]


def little_motion(context: Context) -> list[Finding]:
    """Finds dims that move by less than 1e-3 of their size, or of the widest dim beside them.

    Why: an action is scaled by its own range and learned, noise or not; an observation is scaled
    by the largest range of its column and hardly seen.
    Remedy: config.normalize.min_range, which says in the data's units what counts as motion.
    """
    lines = [
        line.replace("min_range=", "config.normalize.min_range=")
        for key in context.represented_numbers
        for line in normalizers.describe(key, scaling_of(context, key))
    ]
    # The normalizer's own lines, of which those about these dims end in a remedy.
    pairs = [line.split("; ") for line in lines if "; " in line]
    return [
        Finding("warning", "little_motion", reason, remedy, tuple(_KEY.findall(remedy)))
        for reason, remedy in pairs
    ]


def constant_in_training(context: Context) -> list[Finding]:
    """Finds dims that are constant in training but move in the held-out episodes.

    Why: the network has never seen them move.
    Remedy: train on episodes in which they do.
    """
    findings = []
    for key, x in context.numbers.items():
        # Without a split there is nothing to compare with.
        val = context.val.columns.get(key)
        if val is None or not len(val):
            continue
        # A dim that is constant in training equals its mean there.
        distance = np.abs(val - x.mean(0)).max(0)  # [D], largest difference from that constant
        least = np.maximum(scaling.CONSTANT * np.abs(x).max(0), context.config.normalize.min_range)
        dims = np.flatnonzero((np.ptp(x, axis=0) <= least) & (distance > least))
        if len(dims):
            described = describe_dims(key, dims)
            reason = f"constant in training, but not in the held-out episodes: {described}"
            remedy = "train on episodes in which it moves: the network has never seen it move"
            findings.append(Finding("warning", "constant_in_training", reason, remedy))
    return findings


def outliers(context: Context) -> list[Finding]:
    """Finds single numbers far outside the usual range of their dim.

    Why: "limits" maps the whole range to [-1, 1], so one wrong number squeezes all others into
    a small part of it (`data.checks.outliers`).
    Remedy: repair the data, or leave the episode out. "quantile" alone does not help: the number
    reaches the network far beyond all others.
    """
    # Recorded values, not represented ones: the fault is in the recording.
    found = [
        (key, outlier)
        for key, x in context.numbers.items()
        for outlier in checks.outliers({key: x}, context.train.ends)
    ]
    # Every outlier is named, and all of their episodes are left out at once.
    bad = sorted({episode for _, outlier in found for episode in outlier.episodes})
    findings = []
    for _, outlier in found:
        reason = outlier.describe(context.labels[outlier.episode])
        leave, changes = leave_out(context, bad)
        remedy = f"repair the data, or {leave}"
        findings.append(Finding("warning", "outliers", reason, remedy, changes))
    return findings


def heavy_tails(context: Context) -> list[Finding]:
    """Finds dims of which "limits" maps nearly all steps to a small part of [-1, 1].

    Why: the network would have to distinguish very small differences. Values even further out,
    by checks.FAR, are reported by `outliers`.
    Remedy: normalize by "quantile".
    """
    findings = []
    for key, x in context.represented_numbers.items():
        if normalization(context, key) != "limits":
            continue
        # Compare the whole range with that of the middle 98 %. Rotations are not normalized.
        low, high = np.quantile(x, [0.01, 0.99], axis=0)  # [D'] each
        full = np.ptp(x, axis=0)  # [D']
        usual = high - low  # [D'], of the middle 98 %
        # A dim that is constant in 98 % of the steps has no usual range (0) to compare with.
        heavy = (usual > 0) & (full > HEAVY * usual) & (full < checks.FAR * usual)
        dims = np.flatnonzero(heavy & ~represented_rotations(context, key))
        if not len(dims):
            continue
        # The message has the ranges of the worst dim.
        d = dims[np.argmax(full[dims] / usual[dims])]
        reason = (
            f"98 % of {describe_dims(key, dims)} lie in a small part of the range: {key}[{d}] "
            f"in [{low[d]:.4g}, {high[d]:.4g}] of [{x[:, d].min():.4g}, {x[:, d].max():.4g}]"
        )
        remedy = (
            "look at the extremes; if they do not belong to the task, set "
            f"{normalization_key(context, key)}=quantile"
        )
        changes = (f"{normalization_key(context, key)}=quantile",)
        findings.append(Finding("warning", "heavy_tails", reason, remedy, changes))
    return findings


def flattened_by_quantile(context: Context) -> list[Finding]:
    """Finds dims that move, but are constant between the two quantiles of "quantile".

    Why: a gripper that is closed in a smaller share of the steps than config.normalize.quantile
    has the same value at both quantiles, so its dim is normalized like a constant.
    Remedy: normalize by "limits".
    """
    findings = []
    for key in context.represented_numbers:
        if normalization(context, key) != "quantile":
            continue
        dims = np.flatnonzero(scaling_of(context, key).flat)
        if len(dims):
            described = describe_dims(key, dims)
            reason = f"constant to 'quantile', although some steps differ: {described}"
            changes = (f"{normalization_key(context, key)}=limits",)
            remedy = f"set {changes[0]}"
            findings.append(Finding("warning", "flattened_by_quantile", reason, remedy, changes))
    return findings


def large_inputs(context: Context) -> list[Finding]:
    """Finds keys that are far beyond [-1, 1] after normalization.

    Why: the network's initialization and the diffusion's noise are made for values of about 1.
    Remedy: normalize by "limits".
    """
    findings = []
    for key, x in context.represented_numbers.items():
        # "quantile" is chosen for columns with a few values further out; `outliers` names the far.
        if normalization(context, key) == "quantile":
            continue
        # Normalization is monotonic, so the minimum and maximum of each dim are enough.
        extremes = normalize(context, key, np.stack([x.min(0), x.max(0)]))
        largest = np.abs(extremes).max(0)  # [D']
        dims = np.flatnonzero(largest > LARGE)
        if not len(dims):
            continue
        # The message has the largest value, and lists all dims.
        d = dims[np.argmax(largest[dims])]
        reason = (
            f"{describe_dims(key, dims)} reach the network beyond ±{LARGE:g}: {key}[{d}] up to "
            f"{largest[d]:.4g}, normalized by {normalization(context, key)!r}"
        )
        change = f"{normalization_key(context, key)}=limits"
        remedy = f"set {change}, which gives [-1, 1]"
        findings.append(Finding("warning", "large_inputs", reason, remedy, (change,)))
    return findings
