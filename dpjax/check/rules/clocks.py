"""Rules about recorded times and the steps per second."""

import numpy as np

from dpjax.check.context import (
    Context,
    Finding,
    count,
    describe_dims,
    describe_step_of,
    enumerate_some,
    same_episode,
)

MIN_CHANGES = 20  # with fewer steps, a column is not called a clock
JITTER = 0.05  # share of a clock's usual change; smaller deviations count as even
EVEN_SHARE = 0.9  # least share of even changes in a clock; the others may be gaps
MIN_SECONDS = 0.5  # least duration of an action chunk; the paper's chunks last 1.6 s
RATE_ERROR = 0.1  # share of the rate; more is not jitter
GAP = 1.5  # times the median interval; more means that a step was lost


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
            first = _name(clock, backwards[0])
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
                f"{usual:.4g}, the longest {gaps.max():.4g}, first after {_name(clock, late[0])}"
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


def _name(clock, step: int) -> str:
    """Names a clock's step. Clocks have the readable episodes only, and no labels."""
    return "readable " + describe_step_of(clock, int(step))


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
    # The paper has 10 steps per second. A conversion keeps every n-th step.
    option = f"--to-fps={context.fps / max(round(context.fps / 10), 1):g}"
    remedy = (
        f"convert again with {option} (the paper has 10) and --actions=absolute or "
        "--actions=deltas, or raise config.horizon"
    )
    return [Finding("note", "short_chunks", reason, remedy, (option,))]


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


def mixed_rates(context: Context) -> list[Finding]:
    """Finds data sets with different steps per second in one training.

    Why: the same motion is then learned as several: a chunk of 16 steps lasts 1.6 s in one of them
    and 0.5 s in another. The robot executes all of them at one rate.
    Remedy: resample to one rate.
    """
    rates = {name: fps for name, fps in context.rates.items() if fps}
    low = min(rates.values(), default=0.0)
    if max(rates.values(), default=0.0) <= low * (1 + RATE_ERROR):
        return []
    listed = enumerate_some([f"{name} has {fps:g}" for name, fps in rates.items()])
    reason = f"the data sets differ in their steps per second: {listed}"
    common = _common_rate(list(rates.values()))
    if not common:
        remedy = "train on sets of one rate: no common one divides them all"
        return [Finding("error", "mixed_rates", reason, remedy)]
    remedy = (
        f"convert the faster ones again with --to-fps={common:g} (python -m dpjax.convert; with "
        "--actions=absolute or --actions=deltas), or train on sets of one rate"
    )
    return [Finding("error", "mixed_rates", reason, remedy, (f"--to-fps={common:g}",))]


def _common_rate(rates: list[float]) -> float:
    """The highest rate, of the lowest one's fractions, of which all are multiples; 0: none."""
    for n in range(1, 11):
        multiples = np.array(rates) * n / min(rates)
        if (np.abs(multiples - multiples.round()) < 5e-3 * multiples).all():
            return min(rates) / n
    return 0.0
