"""The metrics of a policy's episodes, with 95 % confidence intervals.

There are always two numbers. The mean score has a bootstrap interval (Efron 1979). The success
rate p of n episodes has Wilson's interval (1927), which stays inside [0, 1] and is valid at 0 of n
too:

    (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n),   z = 1.96      (1)

Broken episodes are counted, but are part of neither number.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dpjax.evaluation.rollout import Episode

CONFIDENCE = 0.95  # of both intervals


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval (1) of a success rate."""
    from scipy import stats  # here, since its import would slow down the start of every command

    # binomtest tests a rate of 1/2 by default, which does not affect the interval.
    test = stats.binomtest(int(successes), int(trials))
    interval = test.proportion_ci(confidence_level=CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap(x: np.ndarray, *, seed: int = 0, resamples: int = 5000) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of x [E]; the same seed, the same numbers."""
    from scipy import stats  # here, as in `wilson`

    x = np.asarray(x, np.float64)
    if len(x) == 1:
        return float(x[0]), float(x[0])  # scipy refuses a single score: all resamples are equal
    # Draws E scores with replacement, 5,000 times. The interval is from the 2.5 % to the 97.5 %
    # quantile of their means. This assumes nothing about the distribution of scores, many of which
    # are exactly 1.
    result = stats.bootstrap(
        (x,),
        np.mean,
        n_resamples=resamples,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def summarize(episodes: Sequence[Episode], *, seed: int = 0) -> dict[str, Any]:
    """Both numbers with their 95 % intervals, and counts; ready for JSON.

    "episodes" counts all episodes, "broken" those that are left out of the numbers. If all are
    broken, the numbers are None, since no score is not a score of 0. seed: of the bootstrap.
    """
    # Broken episodes are counted, and left out of everything else.
    valid = [episode for episode in episodes if not episode.broken]
    counts = {
        "episodes": len(episodes),
        "broken": len(episodes) - len(valid),
        "out_of_bounds": sum(episode.out_of_bounds for episode in valid),
    }
    if not valid:
        # The same keys as below, so that readers of the JSON need no special case.
        names = ("score", "score_interval", "success", "success_interval", "mean_steps")
        return {**dict.fromkeys(names), **counts}
    scores = np.array([episode.score for episode in valid], np.float64)
    successes = sum(bool(episode.success) for episode in valid)
    return {
        "score": float(scores.mean()),
        "score_interval": list(bootstrap(scores, seed=seed)),
        "success": successes / len(valid),
        "success_interval": list(wilson(successes, len(valid))),
        "mean_steps": float(np.mean([episode.steps for episode in valid])),
        **counts,
    }


def by_seed(episodes: Sequence[Episode]) -> list[dict[str, Any]]:
    """One dict per episode, ready for JSON, to compare policies seed by seed."""
    return [
        {
            "seed": episode.seed,
            # JSON has no nan.
            "score": None if episode.broken else float(episode.score),
            "success": bool(episode.success),
            # The largest one, which the score is of; 0 for an episode that broke at its reset.
            "progress": float(np.max(episode.progress, initial=0.0)),
            "steps": episode.steps,
            "out_of_bounds": episode.out_of_bounds,
            "broken": episode.broken,
        }
        for episode in episodes
    ]


def line(numbers: Mapping[str, Any]) -> str:
    """A summary in one line: score 0.87 [0.82, 0.91]  success 0.62 [0.48, 0.74]  50 episodes"""
    # Both numbers and the number of episodes always, problems only if there were any.
    parts = [
        f"score {with_interval(numbers['score'], numbers['score_interval'])}",
        f"success {with_interval(numbers['success'], numbers['success_interval'])}",
        f"{numbers['episodes']} episodes",
    ]
    if numbers["broken"]:
        parts.append(f"{numbers['broken']} broken, left out")
    if numbers["out_of_bounds"]:
        parts.append(f"{numbers['out_of_bounds']} actions out of bounds")
    return "  ".join(parts)


def with_interval(value: float | None, interval: Sequence[float] | None) -> str:
    """0.87 [0.82, 0.91], or "none" without a value."""
    if value is None or interval is None:
        return "none"
    return f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"
