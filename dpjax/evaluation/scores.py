"""What episodes say about a policy, and how sure that is.

There are always two numbers: the mean score with a bootstrap interval (Efron 1979), and the
success rate with Wilson's interval (1927), which stays inside [0, 1] and is right at 0 of n too:

    (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n),   z = 1.96      (1)

Broken episodes are counted and belong to neither.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dpjax.evaluation.rollout import Episode

CONFIDENCE = 0.95


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval (1) of a success rate."""
    from scipy import stats  # here, since its import takes longer than a command's start should

    # The rate that the test is made for (1/2) does not enter the interval.
    test = stats.binomtest(int(successes), int(trials))
    interval = test.proportion_ci(confidence_level=CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def bootstrap(x: np.ndarray, *, seed: int = 0, resamples: int = 5000) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of x [E]; a seed gives the same numbers always."""
    from scipy import stats  # here, see `wilson`

    x = np.asarray(x, np.float64)
    if len(x) == 1:
        return float(x[0]), float(x[0])  # all resamples are the same; scipy refuses them
    # 5,000 times E scores drawn with replacement; the interval is between the 2.5 % and the 97.5 %
    # quantile of their means. It makes no assumption on how scores are distributed.
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

    "episodes" counts all, "broken" those that are left out of the numbers. If none is left, the
    numbers are None: no score is not the same as a score of 0. seed: of the bootstrap.
    """
    # Broken episodes are counted here, and nowhere else.
    valid = [episode for episode in episodes if not episode.broken]
    counts = {
        "episodes": len(episodes),
        "broken": len(episodes) - len(valid),
        "out_of_bounds": sum(episode.out_of_bounds for episode in valid),
    }
    if not valid:
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
            "score": None if episode.broken else float(episode.score),
            "success": bool(episode.success),
            "progress": float(np.max(episode.progress, initial=0.0)),
            "steps": episode.steps,
            "out_of_bounds": episode.out_of_bounds,
            "broken": episode.broken,
        }
        for episode in episodes
    ]


def line(numbers: Mapping[str, Any]) -> str:
    """A summary in one line: score 0.87 [0.82, 0.91]  success 0.62 [0.48, 0.74]  50 episodes"""
    # Always the two numbers and how many episodes; what went wrong only if something did.
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
