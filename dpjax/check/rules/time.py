"""Rules about time: how long, how steady, and how much of it nothing happens."""

import numpy as np

from dpjax.check.context import Case, Finding, counted, inside, listed, named

MANY_COPIES = 0.25  # share of the windows' steps that are copies of an episode's edge
REST = 5e-3  # of a dim's range, within a stretch of waiting: a sensor's noise
SLOW = 0.05  # of the 90th percentile of a dim's motion in as many steps: slower is standing
SAMPLE = 10_000  # stretches, that are enough for a percentile
IDLE = 0.25  # share of idle steps: a quarter of what is learned is to wait
OFTEN = 0.1  # share of the episodes that begin with, or hold, a stretch of waiting
ENOUGH = 20  # steps below which nothing is said of evenness
SMOOTH = 0.05  # of a clock's step: its jitter
MOSTLY = 0.9  # of its steps, that are even; the others are gaps
LASTING = 0.5  # seconds of a plan; the paper's are 1.6
DRIFT = 0.1  # of the rate: more is no jitter
GAP = 1.5  # usual intervals: a step was lost
SMALL, FEW = 5, 20  # episodes: nothing is learned but they; generalization is not to be expected
ODD = 5.0  # times the median length, or less than its inverse


def short(case: Case) -> list[Finding]:
    """Episodes that are shorter than what is predicted, and so padded with copies."""
    horizon, lengths = case.config.horizon, case.train.lengths
    needed = horizon.predict - (horizon.obs - 1) - (horizon.act - 1)
    few = np.flatnonzero(lengths < needed)
    if not len(few):
        return []
    labels = [case.labels[e] for e in few]
    reason = (
        f"{len(few)} of {len(lengths)} training episodes have fewer than the {needed} steps of a "
        f"window (the shortest {lengths.min()}) and are padded: {listed(labels)}"
    )
    remedy = "leave them out, lower config.horizon.predict, or config.loss.mask_padding=True"
    return [Finding("warning", "short", reason, remedy)]


def padded(case: Case) -> list[Finding]:
    """Windows of which much is not recorded but copied."""
    if case.padding <= MANY_COPIES or case.config.loss.mask_padding:
        return []
    reason = f"{case.padding:.0%} of the steps in the windows are copies of an episode's edge"
    remedy = "lower config.horizon.predict, or leave them out: config.loss.mask_padding=True"
    return [Finding("warning", "padded", reason, remedy)]


def lengths(case: Case) -> list[Finding]:
    """Episodes far longer or shorter than the others."""
    all_of, middle = case.train.lengths, np.median(case.train.lengths)
    odd = np.flatnonzero((all_of > ODD * middle) | (all_of * ODD < middle))
    if not len(odd):
        return []
    reason = (
        f"{listed([case.labels[e] for e in odd])} have {listed(all_of[odd].tolist())} steps; "
        f"the median has {middle:g}"
    )
    remedy = "look at them: a recording that was not stopped, or was stopped too early"
    return [Finding("note", "lengths", reason, remedy)]


def few(case: Case) -> list[Finding]:
    """So few episodes that the policy knows them only."""
    count = len(case.train.ends)
    if count >= FEW:
        return []
    reason = f"{counted(count, 'episode')} to train on"
    remedy = "record more, from other starts: what lies between them is guessed"
    return [Finding("warning" if count < SMALL else "note", "few", reason, remedy)]


def idle(case: Case) -> list[Finding]:
    """Waiting: where a whole chunk holds nothing but rest, a policy learns to rest forever."""
    horizon, count = case.config.horizon, len(case.train.ends)
    whole = horizon.obs - 1 + horizon.act  # observed and executed: no sign that waiting ends
    (first, inner, last), steps_at_rest = _stretches(case, whole)
    found = []
    for name, longest in (("begin with", first), ("hold in their middle", inner)):
        many = np.flatnonzero(longest >= whole)
        if len(many) < max(OFTEN * count, 1):
            continue
        reason = (
            f"{len(many)} of {count} training episodes {name} {whole} or more steps in which "
            f"nothing moves (the longest {longest.max()}): the policy may wait there forever"
        )
        remedy = "cut the waiting out, or raise config.horizon.act beyond it"
        found.append(Finding("warning", "idle", reason, remedy))
    share = steps_at_rest / case.train.ends[-1]
    if share > IDLE and not found:
        reason = f"in {share:.0%} of the steps neither action nor observation moves"
        remedy = (
            "fine at the end of an episode, where it teaches to stop "
            f"(the longest end: {last.max()} steps); cut it out elsewhere"
        )
        found.append(Finding("note", "idle", reason, remedy))
    return found


def _stretches(case, whole):
    """([3, E] the longest rest of `whole` steps or more at the start, in the middle, at the
    end of each episode; how many steps of rest there are in all).
    """
    ends = case.train.ends
    longest = np.zeros((3, len(ends)), np.int64)
    edges = np.diff(np.concatenate([[False], _resting(case, whole), [False]]).astype(np.int8))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    lengths = stops - 1 + whole - starts
    episode = np.searchsorted(ends, starts, side="right")
    at_end = starts + lengths == ends[episode] - 1
    which = np.where(starts == case.train.starts[episode], 0, np.where(at_end, 2, 1))
    np.maximum.at(longest, (which, episode), lengths)
    return longest, int(lengths.sum())


def _resting(case, whole):
    """bool [N]: from row t to row t + whole of its episode nothing moves.

    Over the whole stretch, not step by step: slow is not still.
    """
    ends = case.train.ends
    resting = np.zeros(ends[-1], bool)
    if whole >= len(resting):
        return resting
    episode = np.repeat(np.arange(len(ends)), case.train.lengths)
    still = episode[:-whole] == episode[whole:]
    for x in case.numbers.values():
        parts = np.lib.stride_tricks.sliding_window_view(x, whole + 1, axis=0)
        moved = parts.max(-1) - parts.min(-1)
        usual = np.quantile(moved[:: 1 + len(moved) // SAMPLE], 0.9, axis=0)
        still &= (moved <= np.minimum(REST * np.ptp(x, axis=0), SLOW * usual)).all(1)
    resting[:-whole] = still
    return resting


def where(clock, row: int) -> str:
    """Where a row of a clock's episodes lies, in words."""
    e = int(np.searchsorted(clock.ends, row, side="right"))
    return f"readable episode {e}, step {row - clock.starts[e]}"


def tells_time(case: Case) -> list[Finding]:
    """Observations that grow by the same number every step: a policy learns when, not what."""
    found = []
    for key, x in case.observed.items():
        change = np.diff(x.astype(np.float64), axis=0)[case.inside]
        if len(change) < ENOUGH:
            continue
        middle = np.median(change, axis=0)
        even = (np.abs(change - middle) < SMOOTH * np.abs(middle)).mean(0)
        dims = np.flatnonzero((even > MOSTLY) & (middle != 0))
        if len(dims):
            reason = f"grows by {middle[dims[0]]:.4g} every step, as a clock: {named(key, dims)}"
            remedy = (
                "leave it out of config.data.columns (name the others there): a policy that sees "
                "the time replays a demonstration by it"
            )
            found.append(Finding("warning", "tells_time", reason, remedy))
    return found


def clocks(case: Case) -> list[Finding]:
    """Recorded times that stand still, run backwards or leave gaps."""
    found = []
    for path, clock in case.clocks.items():
        rows = np.flatnonzero(inside(clock.ends))
        (times,) = clock.columns.values()
        gaps = np.diff(times.astype(np.float64))[rows]
        if not len(gaps):
            continue
        usual, back = np.median(gaps), rows[gaps <= 0]
        if len(back):
            many = counted(len(back), "step")
            reason = f"{path} does not increase after {many}, first {where(clock, back[0])}"
            remedy = "order the steps; times since 1970 do not fit a float32: subtract the first"
            found.append(Finding("warning", "clocks", reason, remedy))
        late = rows[gaps > GAP * usual] if usual > 0 else []
        if len(late):
            reason = (
                f"{path} leaves {counted(len(late), 'gap')} of more than {GAP:g} times the usual "
                f"{usual:.4g}, the longest {gaps.max():.4g}, first after {where(clock, late[0])}"
            )
            remedy = "resample to one rate, or cut the episodes there: a step is a step to a policy"
            found.append(Finding("warning", "clocks", reason, remedy))
    return found


def hasty(case: Case) -> list[Finding]:
    """Chunks that are over before anything has happened."""
    seconds = case.config.horizon.predict / case.fps if case.fps else LASTING
    if seconds >= LASTING:
        return []
    reason = (
        f"config.horizon.predict={case.config.horizon.predict} steps at {case.fps:g} a second are "
        f"{seconds:.2g} s: pauses outlast a plan, and each look may change its mind"
    )
    remedy = "convert to about 10 steps a second (the paper's), or raise config.horizon"
    return [Finding("note", "hasty", reason, remedy)]


def rate(case: Case) -> list[Finding]:
    """Clocks of another rate than the data set gives for itself."""
    found = []
    for path, clock in case.clocks.items():
        (times,) = clock.columns.values()
        gaps = np.diff(times.astype(np.float64))[inside(clock.ends)]
        usual = np.median(gaps) if len(gaps) else 0.0
        if case.fps and usual > 0 and abs(usual * case.fps - 1) > DRIFT:
            reason = (
                f"{path} takes {1 / usual:.4g} steps a second, and the data set says {case.fps:g}"
            )
            remedy = "find out which is right, and run the robot at it: a chunk is in steps"
            found.append(Finding("warning", "rate", reason, remedy))
    return found


RULES = (short, padded, lengths, few, idle, tells_time, clocks, hasty, rate)
