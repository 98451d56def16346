"""A rule about dummies: numbers that fill the first or the last step of an episode."""

import numpy as np

from dpjax.check.context import Context, Finding, count, describe_dims, is_binary, step_sizes
from dpjax.core.types import ACTION

FAR = 3.0  # times the 99th percentile of a dim's other changes; a motion is not that fast
LARGE = 0.05  # share of a dim's range; smaller steps do no harm
SHARE = 0.05  # share of the episodes that begin or end with such a step
MIN_EPISODES = 3  # fewer are single faults, which `action_jumps` and `outliers` name
COMMON = 0.8  # share of the far steps with the same numbers: a filler


def dummy_steps(context: Context) -> list[Finding]:
    """Finds first or last steps whose numbers are unlike all others, such as zeros.

    Why: an absolute action of zeros is a command to go to the origin. It is learned, and it widens
    the range to which the data are scaled. (A change of zero, or a repeated target, is harmless.)
    Remedy: leave that step out.
    """
    findings = []
    for key, x in context.numbers.items():
        for where, (far, dims, edge) in far_edges(context, x).items():
            if not far.any():
                continue
            examples = edge[far]
            # How often the most frequent numbers occur.
            values, numbers = np.unique(examples, axis=0, return_counts=True)
            filler = values[np.argmax(numbers)]
            if numbers.max() >= COMMON * len(examples):
                what = "zeros" if not filler.any() else f"always {_numbers(filler)}"
            else:
                what = f"such as {_numbers(examples[0])}"
            reason = (
                f"{describe_dims(key, dims)} of the {where} step is unlike its neighbours in "
                f"{far.sum()} of {count(len(far), 'episode')} ({what}): a dummy"
            )
            remedy = f"convert again with --drop-{where} 1, which leaves the {where} steps out"
            if key != ACTION:
                remedy += f", or put there what {key} was"
            findings.append(Finding("warning", "dummy_steps", reason, remedy))
    return findings


def _numbers(x):
    """A few numbers of a step."""
    return "[" + ", ".join(f"{v:.4g}" for v in x[:4]) + (", …]" if len(x) > 4 else "]")


def far_edges(context: Context, x: np.ndarray) -> dict:
    """Which first and last steps of a column [N, D] are far from their neighbours.

    Returns {"first" or "last": (bool [E], the dims that jump there, their numbers [E, D])}.
    """
    train = context.train
    # An episode of three steps has no inner change to compare with.
    long = train.lengths >= 4  # [E]
    moved = step_sizes(context, x)  # [N - 1, D]
    edges = {"first": train.starts, "last": train.ends - 2}  # of the changes
    inner = np.ones(len(moved), bool)
    for at in edges.values():
        inner[at[long]] = False
    # The changes between two episodes are none.
    inner &= context.same_episode
    # What is usual is measured away from the edges: a dummy in each of 60 steps would raise it.
    found = {}
    usual = np.quantile(moved[inner], 0.99, axis=0) if inner.any() else np.full(x.shape[1], np.inf)
    for where, at in edges.items():
        far = np.zeros((len(at), x.shape[1]), bool)
        limit = np.maximum(FAR * usual, LARGE * np.ptp(x, axis=0))
        far[long] = (moved[at[long]] > limit) & ~is_binary(x) & (usual > 0)
        # A few such episodes are faults of their own; a dummy comes from the way of recording.
        episodes = far.any(1)
        if episodes.sum() < max(MIN_EPISODES, SHARE * len(at)):
            episodes[:] = False
        step = train.starts if where == "first" else train.ends - 1
        found[where] = (episodes, np.flatnonzero(far.any(0)), x[step])
    return found


def at_dummies(context: Context, x: np.ndarray) -> np.ndarray:
    """bool [N - 1]: changes of a column [N, D] to or from a dummy."""
    edges = far_edges(context, x)
    changes = np.zeros(len(x) - 1, bool)
    changes[context.train.starts[edges["first"][0]]] = True
    changes[context.train.ends[edges["last"][0]] - 2] = True
    return changes
