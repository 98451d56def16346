"""Rules about time: padded windows and waiting."""

import numpy as np

from dpjax.check.context import Context, Finding

PADDED_SHARE = 0.25  # share of the windows' steps
REST = 5e-3  # share of a dim's range; less motion during a wait is noise of the sensor
SLOW = 0.05  # share of the 90th percentile of a dim's motion over as many steps; less is rest
SAMPLE = 10_000  # stretches from which that percentile is estimated
IDLE_SHARE = 0.25  # share of all steps; above this a quarter of the data teaches to wait
IDLE_EPISODES = 0.1  # share of the episodes with a long wait


def padded_windows(context: Context) -> list[Finding]:
    """Finds windows that consist largely of copies of an episode's first or last step.

    Why: nothing moves in the copies, so the policy learns to stop.
    Remedy: predict fewer steps, or leave the copies out of the loss.
    """
    # With mask_padding the loss leaves the copies out, so they do no harm.
    if context.padded_share <= PADDED_SHARE or context.config.loss.mask_padding:
        return []
    reason = (
        f"{context.padded_share:.0%} of the steps in the windows are copies of an episode's "
        "first or last step"
    )
    remedy = (
        "lower config.horizon.predict, or leave them out of the loss: config.loss.mask_padding=True"
    )
    changes = ("config.loss.mask_padding=True",)
    return [Finding("warning", "padded_windows", reason, remedy, changes)]


def idle_steps(context: Context) -> list[Finding]:
    """Finds episodes in which nothing moves for longer than an action chunk.

    Why: if nothing moves in all observed and executed steps, no observation tells the policy
    when to continue, and it may wait forever.
    Remedy: cut the waiting out, or execute longer chunks.
    """
    horizon = context.config.horizon
    num_episodes = len(context.train.ends)
    length = horizon.obs - 1 + horizon.act  # steps from the first observed to the last executed
    (first, middle, last), num_idle = _longest_rests(context, length)
    findings = []
    # A wait at the end is harmless, since the policy should stop there.
    for where, longest in (("begin with", first), ("hold in their middle", middle)):
        # One episode at least, and a tenth of a large data set.
        many = np.flatnonzero(longest >= length)
        if len(many) < max(IDLE_EPISODES * num_episodes, 1):
            continue
        reason = (
            f"{len(many)} of {num_episodes} training episodes {where} {length} or more steps in "
            f"which nothing moves (the longest {longest.max()}): the policy may wait there forever"
        )
        # The conversion cuts waits off at the start and the end, but not out of the middle.
        changes = ("--trim-idle",) if longest is first else ()
        remedy = (
            "convert the data again with --trim-idle, or raise config.horizon.act beyond it"
            if changes
            else "cut the waiting out, or raise config.horizon.act beyond it"
        )
        findings.append(Finding("warning", "idle_steps", reason, remedy, changes))
    # Otherwise, much waiting in all: in few episodes, or at their ends.
    share = num_idle / context.train.ends[-1]
    if share > IDLE_SHARE and not findings:
        reason = f"in {share:.0%} of the steps neither action nor observation moves"
        remedy = (
            "fine at the end of an episode, where it teaches to stop "
            f"(the longest wait there: {last.max()} steps); cut it out elsewhere"
        )
        findings.append(Finding("note", "idle_steps", reason, remedy))
    return findings


def _longest_rests(context, length):
    """Finds rests: stretches of at least `length` steps in which nothing moves.

    Returns the longest rest [3, E] at the start, in the middle and at the end of each episode
    (0: none), and the number of steps in all rests.
    """
    ends = context.train.ends
    longest = np.zeros((3, len(ends)), np.int64)
    # Consecutive resting steps are one rest. Padded with False, the differences are +1 where a rest
    # begins and -1 after its last resting step.
    edges = np.diff(np.concatenate([[False], _resting(context, length), [False]]).astype(np.int8))
    starts = np.flatnonzero(edges == 1)  # [n], one per rest
    stops = np.flatnonzero(edges == -1)
    # Nothing moves for `length` steps after the last resting step either.
    lengths = stops - 1 + length - starts
    episode = np.searchsorted(ends, starts, side="right")
    at_end = starts + lengths == ends[episode] - 1
    # The row of the result: 0 at the start, 1 in the middle, 2 at the end of the episode.
    where = np.where(starts == context.train.starts[episode], 0, np.where(at_end, 2, 1))
    np.maximum.at(longest, (where, episode), lengths)
    return longest, int(lengths.sum())


def _resting(context, length):
    """bool [N]: whether nothing moves from step t to step t + length of the same episode.

    Motion is measured over the whole stretch, not from step to step, since slow motion is not
    rest.
    """
    ends = context.train.ends
    resting = np.zeros(ends[-1], bool)
    # Too few steps for a single stretch.
    if length >= len(resting):
        return resting
    # A stretch lies in one episode if its first and last step do.
    episode = np.repeat(np.arange(len(ends)), context.train.lengths)
    still = episode[:-length] == episode[length:]  # [N - length]
    for x in context.numbers.values():
        # A view [N - length, D, length + 1] of all stretches; no numbers are copied.
        stretches = np.lib.stride_tricks.sliding_window_view(x, length + 1, axis=0)
        moved = stretches.max(-1) - stretches.min(-1)  # [N - length, D]
        # At rest: the dim moves less than a sensor's noise, and far less than it usually does.
        usual = np.quantile(moved[:: 1 + len(moved) // SAMPLE], 0.9, axis=0)
        still &= (moved <= np.minimum(REST * np.ptp(x, axis=0), SLOW * usual)).all(1)
    resting[:-length] = still  # no stretch starts at the last `length` steps
    return resting
