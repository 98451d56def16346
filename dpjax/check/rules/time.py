"""Rules about time: padded windows, waiting, clocks and rates."""

import numpy as np

from dpjax.check.context import (
    Context,
    Finding,
    count,
    describe_dims,
    same_episode,
)

PADDED_SHARE = 0.25  # of the windows' steps
REST = 5e-3  # of a dim's range, over a stretch of waiting: the noise of a sensor
SLOW = 0.05  # of the 90th percentile of a dim's motion in as many steps: slower is standing still
SAMPLE = 10_000  # stretches, which are enough for a percentile
IDLE_SHARE = 0.25  # of all steps: a quarter of what is learned is to wait
IDLE_EPISODES = 0.1  # share of the episodes with a long wait
MIN_CHANGES = 20  # steps that are needed to call a column a clock
JITTER = 0.05  # of a clock's step
EVEN_SHARE = 0.9  # of a clock's steps that are even; the others are gaps
MIN_SECONDS = 0.5  # of an action chunk; the paper's last 1.6 s
RATE_ERROR = 0.1  # of the rate: more is not jitter
GAP = 1.5  # times the median interval: a step was lost


def padded_windows(context: Context) -> list[Finding]:
    """Finds windows that consist largely of copies of an episode's first or last step.

    Why: a policy that learns from copies learns to stop.
    Remedy: predict fewer steps, or leave copies out of the loss.
    """
    # Copies that the loss leaves out do no harm.
    if context.padded_share <= PADDED_SHARE or context.config.loss.mask_padding:
        return []
    reason = (
        f"{context.padded_share:.0%} of the steps in the windows are copies of an episode's "
        "first or last step"
    )
    remedy = (
        "lower config.horizon.predict, or leave them out of the loss: config.loss.mask_padding=True"
    )
    return [Finding("warning", "padded_windows", reason, remedy)]


def idle_steps(context: Context) -> list[Finding]:
    """Finds episodes in which nothing moves for longer than an action chunk.

    Why: if all that is observed and executed is rest, nothing tells the policy when to go on,
    and it may wait forever.
    Remedy: cut the waiting out, or execute longer chunks.
    """
    horizon = context.config.horizon
    num_episodes = len(context.train.ends)
    length = horizon.obs - 1 + horizon.act  # steps of a chunk: observed, then executed
    (first, middle, last), num_idle = _longest_rests(context, length)
    findings = []
    # A wait at the end is harmless: there the policy should stop.
    for where, longest in (("begin with", first), ("hold in their middle", middle)):
        many = np.flatnonzero(longest >= length)
        if len(many) < max(IDLE_EPISODES * num_episodes, 1):
            continue
        reason = (
            f"{len(many)} of {num_episodes} training episodes {where} {length} or more steps in "
            f"which nothing moves (the longest {longest.max()}): the policy may wait there forever"
        )
        remedy = "cut the waiting out, or raise config.horizon.act beyond it"
        findings.append(Finding("warning", "idle_steps", reason, remedy))
    # Many short waits, or waits at the end: worth knowing only.
    share = num_idle / context.train.ends[-1]
    if share > IDLE_SHARE and not findings:
        reason = f"in {share:.0%} of the steps neither action nor observation moves"
        remedy = (
            "fine at the end of an episode, where it teaches to stop "
            f"(the longest end: {last.max()} steps); cut it out elsewhere"
        )
        findings.append(Finding("note", "idle_steps", reason, remedy))
    return findings


def _longest_rests(context, length):
    """The longest rest of at least `length` steps in each episode, and the number of such steps.

    Returns [3, E]: at the start, in the middle and at the end of each episode; and an int.
    """
    ends = context.train.ends
    longest = np.zeros((3, len(ends)), np.int64)
    # Steps where a run of resting steps begins (+1) and where it is over (-1).
    edges = np.diff(np.concatenate([[False], _resting(context, length), [False]]).astype(np.int8))
    starts = np.flatnonzero(edges == 1)  # [n], one per rest
    stops = np.flatnonzero(edges == -1)
    lengths = stops - 1 + length - starts  # the last resting step starts a stretch too
    episode = np.searchsorted(ends, starts, side="right")
    at_end = starts + lengths == ends[episode] - 1
    # 0, 1, 2: at the start, in the middle, at the end of its episode.
    where = np.where(starts == context.train.starts[episode], 0, np.where(at_end, 2, 1))
    np.maximum.at(longest, (where, episode), lengths)
    return longest, int(lengths.sum())


def _resting(context, length):
    """bool [N]: whether nothing moves from step t to step t + length of the same episode.

    Motion is measured over the whole stretch, not from step to step: slow is not still.
    """
    ends = context.train.ends
    resting = np.zeros(ends[-1], bool)
    if length >= len(resting):
        return resting
    # A stretch lies within one episode if its two ends do.
    episode = np.repeat(np.arange(len(ends)), context.train.lengths)
    still = episode[:-length] == episode[length:]  # [N - length]
    for x in context.numbers.values():
        stretches = np.lib.stride_tricks.sliding_window_view(x, length + 1, axis=0)
        moved = stretches.max(-1) - stretches.min(-1)  # [N - length, D]
        # Still: less than a sensor's noise, and far less than the dim's usual motion.
        usual = np.quantile(moved[:: 1 + len(moved) // SAMPLE], 0.9, axis=0)
        still &= (moved <= np.minimum(REST * np.ptp(x, axis=0), SLOW * usual)).all(1)
    resting[:-length] = still  # the last steps have no stretch
    return resting


def clock_observed(context: Context) -> list[Finding]:
    """Finds observations that grow by the same number at every step.

    Why: a policy that sees the time replays a demonstration by it instead of reacting.
    Remedy: leave the column out.
    """
    findings = []
    for key, x in context.observed.items():
        changes = np.diff(x.astype(np.float64), axis=0)[context.same_episode]
        if len(changes) < MIN_CHANGES:
            continue
        # The same change at nearly every step; medians ignore the gaps.
        usual = np.median(changes, axis=0)  # [D]
        even = (np.abs(changes - usual) < JITTER * np.abs(usual)).mean(0)
        dims = np.flatnonzero((even > EVEN_SHARE) & (usual != 0))
        if len(dims):
            reason = (
                f"grows by {usual[dims[0]]:.4g} at every step, as a clock does: "
                f"{describe_dims(key, dims)}"
            )
            remedy = (
                "leave it out of config.data.columns (list the others there): a policy that sees "
                "the time replays a demonstration by it"
            )
            findings.append(Finding("warning", "clock_observed", reason, remedy))
    return findings


def irregular_clock(context: Context) -> list[Finding]:
    """Finds recorded times that stand still, run backwards or leave gaps.

    Why: to a policy every step lasts equally long.
    Remedy: sort the steps, resample them, or cut episodes at gaps.
    """
    findings = []
    for path, clock in context.clocks.items():
        steps, gaps = _intervals(clock)
        if not len(gaps):
            continue
        usual = np.median(gaps)
        # Times that stand still are wrong as well.
        backwards = steps[gaps <= 0]
        if len(backwards):
            first = _place(clock, backwards[0])
            reason = (
                f"{path} does not increase after {count(len(backwards), 'step')}, first {first}"
            )
            remedy = "sort the steps; times since 1970 do not fit a float32: subtract the first"
            findings.append(Finding("warning", "irregular_clock", reason, remedy))
        late = steps[gaps > GAP * usual] if usual > 0 else []
        if len(late):
            reason = (
                f"{path} leaves {count(len(late), 'gap')} of more than {GAP:g} times the usual "
                f"{usual:.4g}, the longest {gaps.max():.4g}, first after {_place(clock, late[0])}"
            )
            remedy = "resample to one rate, or cut there: to a policy all steps last equally long"
            findings.append(Finding("warning", "irregular_clock", reason, remedy))
    return findings


def _intervals(clock) -> tuple[np.ndarray, np.ndarray]:
    """Steps that have a next one in their episode, and the time until that one."""
    steps = np.flatnonzero(same_episode(clock.ends))
    # A clock has a single column.
    (times,) = clock.columns.values()
    return steps, np.diff(times.astype(np.float64))[steps]


def _place(clock, step: int) -> str:
    """The episode and the step in it of a clock's step; bad episodes are not counted."""
    e = int(np.searchsorted(clock.ends, step, side="right"))
    return f"readable episode {e}, step {step - clock.starts[e]}"


def short_chunks(context: Context) -> list[Finding]:
    """Finds action chunks that last less than MIN_SECONDS.

    Why: pauses of a demonstrator outlast such a chunk, and the policy may change its mind at
    every one.
    Remedy: fewer steps per second, or longer horizons.
    """
    if not context.fps:
        return []
    predict = context.config.horizon.predict
    # The whole chunk is compared, not only its executed part: a plan has to see past a pause.
    seconds = predict / context.fps
    if seconds >= MIN_SECONDS:
        return []
    reason = (
        f"config.horizon.predict={predict} steps at {context.fps:g} per second are "
        f"{seconds:.2g} s: pauses outlast an action chunk, and each chunk may change its mind"
    )
    remedy = "convert to about 10 steps per second (the paper's rate), or raise config.horizon"
    return [Finding("note", "short_chunks", reason, remedy)]


def rate_mismatch(context: Context) -> list[Finding]:
    """Finds clocks of another rate than the data set's metadata give.

    Why: the robot executes chunks at one of the two rates.
    Remedy: find out which is right.
    """
    findings = []
    for path, clock in context.clocks.items():
        _, gaps = _intervals(clock)
        # The median interval, which lost steps do not move.
        usual = np.median(gaps) if len(gaps) else 0.0
        if context.fps and usual > 0 and abs(usual * context.fps - 1) > RATE_ERROR:
            reason = (
                f"{path} makes {1 / usual:.4g} steps per second, but the data set says "
                f"{context.fps:g}"
            )
            remedy = "find out which rate is right, and run the robot at it"
            findings.append(Finding("warning", "rate_mismatch", reason, remedy))
    return findings
