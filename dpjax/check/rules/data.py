"""Rules about the numbers themselves: what their values say, whatever they mean."""

import numpy as np

from dpjax.check.context import (
    Case,
    Finding,
    fixed,
    listed,
    mode,
    mode_key,
    named,
    network,
    numbers_learned,
    two_valued,
)
from dpjax.core.types import ACTION
from dpjax.data import checks

HEAVY = 10.0  # range over the range of the middle 98 %: 4 of a Gaussian, 1 of a uniform
BEYOND = 10.0  # network units: ten deviations, or ten times what "limits" gives


def unreadable(case: Case) -> list[Finding]:
    """Episodes with NaN, infinite or missing numbers, which were left out here."""
    if not case.skipped:
        return []
    refused = case.config.data.on_bad == "refuse"
    total = len(case.skipped) + len(case.labels)
    first = case.skipped[0].rstrip(".")
    reason = f"{len(case.skipped)} of {total} episodes cannot be used; the first: {first}"
    remedy = (
        "mend them, or set config.data.on_bad=skip to train without them"
        if refused
        else "mend them: they are left out of training"
    )
    return [Finding("error" if refused else "warning", "unreadable", reason, remedy)]


def constant(case: Case) -> list[Finding]:
    """Dims that do not move: harmless to training, not where a robot moves them."""
    least = case.config.normalize.min_range
    still = {key: np.ptp(x, axis=0) < least for key, x in case.numbers.items()}
    if still[ACTION].all():
        reason = f"no dim of the action moves by more than {least:g} (config.normalize.min_range)"
        remedy = "check config.data.columns.action: there is nothing to learn"
        return [Finding("error", "constant", reason, remedy)]
    dims = [named(key, np.flatnonzero(flags)) for key, flags in still.items() if flags.any()]
    if not dims:
        return []
    reason = f"constant to {least:g} over the training data: {', '.join(dims)}"
    remedy = "nothing, where they are so on the robot too; else record data in which they move"
    return [Finding("note", "constant", reason, remedy)]


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
    found = []
    for key, x in case.numbers.items():
        for outlier in checks.outliers({key: x}, case.train.ends):
            reason = outlier.describe(case.labels[outlier.episode])
            remedy = f"mend the data, or {mode_key(key)}=quantile"
            found.append(Finding("warning", "outliers", reason, remedy))
    return found


def heavy_tails(case: Case) -> list[Finding]:
    """Dims of which "limits" squeezes nearly all steps into a sliver of [-1, 1]."""
    found = []
    for key, x in numbers_learned(case).items():
        if mode(case, key) != "limits":
            continue
        low, high = np.quantile(x, [0.01, 0.99], axis=0)
        full, usual = np.ptp(x, axis=0), high - low
        heavy = (usual > 0) & (full > HEAVY * usual) & (full < checks.FAR * usual)
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


RULES = (
    *(unreadable, constant, moves_later, outliers, heavy_tails, flattened, beyond_units),
    switches,
)
