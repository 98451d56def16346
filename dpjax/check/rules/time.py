"""Rules about time: padded windows, waiting, recorded clocks and rates."""

import numpy as np

from dpjax.check.context import (
    Context,
    Finding,
    count,
    describe_dims,
    same_episode,
)

PADDED_SHARE = 0.25  # share of the windows' steps
REST = 5e-3  # share of a dim's range; less motion during a wait is noise of the sensor
SLOW = 0.05  # share of the 90th percentile of a dim's motion over as many steps; less is rest
SAMPLE = 10_000  # stretches from which that percentile is estimated
IDLE_SHARE = 0.25  # share of all steps; above this a quarter of the data teaches to wait
IDLE_EPISODES = 0.1  # share of the episodes with a long wait
MIN_CHANGES = 20  # with fewer steps, a column is not called a clock
JITTER = 0.05  # share of a clock's usual change; smaller deviations count as even
EVEN_SHARE = 0.9  # least share of even changes in a clock; the others may be gaps
MIN_SECONDS = 0.5  # least duration of an action chunk; the paper's chunks last 1.6 s
RATE_ERROR = 0.1  # share of the rate; more is not jitter
GAP = 1.5  # times the median interval; more means that a step was lost


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
    return [Finding("warning", "padded_windows", reason, remedy)]


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
        remedy = "cut the waiting out, or raise config.horizon.act beyond it"
        findings.append(Finding("warning", "idle_steps", reason, remedy))
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


def clock_observed(context: Context) -> list[Finding]:
    """Finds observations that grow by the same number at every step, as a clock does.

    Why: a policy that sees the time may replay a demonstration by it instead of reacting.
    Remedy: leave the column out.
    """
    findings = []
    for key, x in context.observed.items():
        changes = np.diff(x.astype(np.float64), axis=0)[context.same_episode]
        if len(changes) < MIN_CHANGES:
            continue
        # The change is the same at nearly all steps. The median ignores the others, such as gaps.
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
    """Finds recorded times that stand still, go backwards or have gaps.

    Why: a policy assumes that all steps last equally long.
    Remedy: sort the steps, resample them, or cut episodes at gaps.
    """
    findings = []
    for path, clock in context.clocks.items():
        steps, gaps = _intervals(clock)
        if not len(gaps):
            continue
        usual = np.median(gaps)
        # Equal times are as wrong as decreasing ones.
        backwards = steps[gaps <= 0]
        if len(backwards):
            first = _place(clock, backwards[0])
            reason = (
                f"{path} does not increase after {count(len(backwards), 'step')}, first {first}"
            )
            remedy = "sort the steps; subtract the first time if they count from 1970 (float32)"
            findings.append(Finding("warning", "irregular_clock", reason, remedy))
        # A median of 0 means that most times stand still, which is reported above.
        late = steps[gaps > GAP * usual] if usual > 0 else []
        if len(late):
            reason = (
                f"{path} leaves {count(len(late), 'gap')} of more than {GAP:g} times the usual "
                f"{usual:.4g}, the longest {gaps.max():.4g}, first after {_place(clock, late[0])}"
            )
            remedy = "resample to one rate, or cut there: a policy assumes equally long steps"
            findings.append(Finding("warning", "irregular_clock", reason, remedy))
    return findings


def _intervals(clock) -> tuple[np.ndarray, np.ndarray]:
    """Steps [n] that have a next one in their episode, and the time [n] between the two."""
    steps = np.flatnonzero(same_episode(clock.ends))
    # A clock has a single column [N].
    (times,) = clock.columns.values()
    return steps, np.diff(times.astype(np.float64))[steps]


def _place(clock, step: int) -> str:
    """Names a clock's step by its episode and its number in it."""
    # Clocks have the readable episodes only, and no labels, so these are counted.
    e = int(np.searchsorted(clock.ends, step, side="right"))
    return f"readable episode {e}, step {step - clock.starts[e]}"


def short_chunks(context: Context) -> list[Finding]:
    """Finds action chunks that last less than MIN_SECONDS.

    Why: a demonstrator's pauses last longer than such a chunk, and the policy may decide
    differently at every chunk.
    Remedy: fewer steps per second, or longer horizons.
    """
    if not context.fps:
        return []
    predict = context.config.horizon.predict
    # All predicted steps count, not only the executed ones: they have to reach beyond a pause.
    seconds = predict / context.fps
    if seconds >= MIN_SECONDS:
        return []
    reason = (
        f"config.horizon.predict={predict} steps at {context.fps:g} per second are "
        f"{seconds:.2g} s: pauses last longer than a chunk, and each chunk may decide differently"
    )
    remedy = "convert to about 10 steps per second (the paper's rate), or raise config.horizon"
    return [Finding("note", "short_chunks", reason, remedy)]


def rate_mismatch(context: Context) -> list[Finding]:
    """Finds clocks whose rate differs from the one in the data set's metadata.

    Why: the robot has to execute chunks at the rate at which they were recorded.
    Remedy: find out which rate is right.
    """
    findings = []
    for path, clock in context.clocks.items():
        _, gaps = _intervals(clock)
        # The median interval, which lost steps do not change.
        usual = np.median(gaps) if len(gaps) else 0.0
        if context.fps and usual > 0 and abs(usual * context.fps - 1) > RATE_ERROR:
            reason = (
                f"{path} makes {1 / usual:.4g} steps per second, but the data set says "
                f"{context.fps:g}"
            )
            remedy = "find out which rate is right, and run the robot at it"
            findings.append(Finding("warning", "rate_mismatch", reason, remedy))
    return findings
