"""Rules about the set of episodes: their number and lengths, and the held-out ones."""

import numpy as np

from dpjax.check.context import Context, Finding, count, enumerate_some

VERY_FEW = 5  # with fewer episodes, the policy can only repeat them
FEW = 20  # with fewer episodes, generalization cannot be expected
ODD_LENGTH = 5.0  # longer than the median by this factor, or shorter by it


def few_episodes(context: Context) -> list[Finding]:
    """Finds data sets with too few episodes to generalize from.

    Why: between the recorded initial states, the policy has to guess.
    Remedy: record more episodes, from other initial states.
    """
    number = len(context.train.ends)
    if number >= FEW:
        return []
    reason = f"{count(number, 'episode')} to train on"
    remedy = "record more, from other initial states: between these the policy has to guess"
    severity = "warning" if number < VERY_FEW else "note"
    return [Finding(severity, "few_episodes", reason, remedy)]


def odd_lengths(context: Context) -> list[Finding]:
    """Finds episodes that are far longer or shorter than the others.

    Why: the recording was not stopped, or was stopped too early.
    Remedy: look at them.
    """
    # Compared with the median, which a few odd episodes do not change.
    lengths = context.train.lengths
    median = np.median(lengths)
    odd = np.flatnonzero((lengths > ODD_LENGTH * median) | (lengths * ODD_LENGTH < median))
    if not len(odd):
        return []
    labels = enumerate_some([context.labels[e] for e in odd])
    steps = enumerate_some(lengths[odd].tolist())
    reason = f"{labels} have {steps} steps; the median has {median:g}"
    remedy = "look at them: perhaps a recording was not stopped, or was stopped too early"
    return [Finding("note", "odd_lengths", reason, remedy)]


def short_episodes(context: Context) -> list[Finding]:
    """Finds episodes that are shorter than a window.

    Why: their windows are padded with copies of the first and last step, in which nothing
    moves, so the policy learns to stop.
    Remedy: leave them out, predict fewer steps, or leave the copies out of the loss.
    """
    horizon = context.config.horizon
    lengths = context.train.lengths
    # As in the paper's code, a window may begin To - 1 steps before its episode, and end Ta - 1
    # steps after it. Episodes shorter than the rest are padded even more.
    # With mask_padding the loss leaves the copies out, so they do no harm.
    if context.config.loss.mask_padding:
        return []
    needed = horizon.predict - (horizon.obs - 1) - (horizon.act - 1)
    short = np.flatnonzero(lengths < needed)
    if not len(short):
        return []
    reason = (
        f"{len(short)} of {len(lengths)} training episodes have fewer than the {needed} steps of "
        f"a window (the shortest {lengths.min()}) and are padded: "
        f"{enumerate_some([context.labels[e] for e in short])}"
    )
    remedy = "leave them out, lower config.horizon.predict, or set config.loss.mask_padding=True"
    changes = ("config.loss.mask_padding=True",)
    return [Finding("warning", "short_episodes", reason, remedy, changes)]


def one_held_out(context: Context) -> list[Finding]:
    """Finds a split with a single held-out episode.

    Why: the held-out error then depends on this episode alone.
    Remedy: hold out more episodes if the error is used to choose a checkpoint or a setting.
    """
    # Only if training measures a held-out error at all.
    config = context.config
    measured = config.val.every and config.data.val_fraction
    if not measured or len(context.val.ends) != 1:
        return []
    reason = "one episode is held out: the held-out error depends on this episode alone"
    # One more than the two that are wanted, whatever the rounding.
    change = f"config.data.val_fraction={min(3 / len(context.labels), 0.5):.2g}"
    remedy = f"set {change} if this error is used to choose a checkpoint"
    return [Finding("note", "one_held_out", reason, remedy, (change,))]
