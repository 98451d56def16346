"""What the episodes say about the policy, and how sure that is.

Two numbers, always both: the mean score, with a bootstrap interval (Efron 1979), and the
success rate, with Wilson's (1927), which stays inside [0, 1] and is honest at 0 of n:

    (p + z²/2n ± z sqrt(p (1 - p) / n + z²/4n²)) / (1 + z²/n),   z = 1.96      (1)

Broken episodes are counted and belong to neither.
"""

from collections.abc import Sequence
import math
from typing import Any

import numpy as np

Z = 1.959964  # 97.5 % point of the normal distribution


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """The 95 % interval (1) of a success rate."""
    p, z2 = successes / trials, Z * Z
    middle = p + z2 / (2 * trials)
    half = Z * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials**2))
    low, high = (middle - half) / (1 + z2 / trials), (middle + half) / (1 + z2 / trials)
    return max(0.0, low), min(1.0, high)


def bootstrap(x: np.ndarray, *, seed: int = 0, resamples: int = 5000) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of x [E]; the same numbers every time."""
    x = np.asarray(x, np.float64)
    rows = np.random.default_rng(seed).integers(len(x), size=(resamples, len(x)))
    low, high = np.quantile(x[rows].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def summary(episodes: Sequence[Any], *, seed: int = 0) -> dict[str, Any]:
    """Both metrics with their 95 % intervals, and the counts; ready for JSON.

    episodes counts all, broken those left out of the metrics. With nothing left the
    metrics are None: there is no score, which is not the same as a score of 0.
    """
    valid = [episode for episode in episodes if not episode.broken]
    counts = dict(
        episodes=len(episodes),
        broken=len(episodes) - len(valid),
        out_of_bounds=sum(episode.out_of_bounds for episode in valid),
    )
    if not valid:
        names = ("score", "score_interval", "success", "success_interval", "mean_steps")
        return {**dict.fromkeys(names), **counts}
    scores = np.array([episode.score for episode in valid], np.float64)
    successes = sum(bool(episode.success) for episode in valid)
    return dict(
        score=float(scores.mean()),
        score_interval=list(bootstrap(scores, seed=seed)),
        success=successes / len(valid),
        success_interval=list(wilson(successes, len(valid))),
        mean_steps=float(np.mean([episode.steps for episode in valid])),
        **counts,
    )


def rows(episodes: Sequence[Any]) -> list[dict[str, Any]]:
    """One dict an episode, ready for JSON and for comparing policies seed by seed."""
    return [
        dict(
            seed=episode.seed,
            score=None if episode.broken else float(episode.score),
            success=bool(episode.success),
            progress=float(np.max(episode.progress, initial=0.0)),
            steps=episode.steps,
            out_of_bounds=episode.out_of_bounds,
            broken=episode.broken,
        )
        for episode in episodes
    ]


def line(numbers: dict[str, Any]) -> str:
    """A summary in one line: score 0.87 [0.82, 0.91]  success 0.62 [0.48, 0.74]  50 episodes"""
    said = [
        f"score {pm(numbers['score'], numbers['score_interval'])}",
        f"success {pm(numbers['success'], numbers['success_interval'])}",
        f"{numbers['episodes']} episodes",
    ]
    if numbers["broken"]:
        said.append(f"{numbers['broken']} broken, left out")
    if numbers["out_of_bounds"]:
        said.append(f"{numbers['out_of_bounds']} actions out of bounds")
    return "  ".join(said)


def pm(value: float | None, interval: Sequence[float] | None) -> str:
    """0.87 [0.82, 0.91]"""
    if value is None:
        return "none"
    return f"{value:.2f} [{interval[0]:.2f}, {interval[1]:.2f}]"
