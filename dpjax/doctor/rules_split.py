"""Rules about episodes that are there twice, and on both sides of the split."""

import numpy as np

from dpjax.data.episodes import Episodes
from dpjax.doctor.case import Case, Finding, listed

SHARED = 0.5  # of an episode's moving steps: so much in common is no coincidence
NEAR = 0.01  # network units, the root of the mean square: a hundredth of half the range
POINTS = 24  # of an episode that are compared
PAIRS = 2000  # episodes that are compared with each other; of more, every k-th

Label = tuple[str, int]  # "training" or "held-out", and the episode


def duplicates(case: Case) -> list[Finding]:
    """Episodes that share their steps, exactly: copied, or cut from one recording."""
    parts = (case.train, case.val)
    shared = _shared(parts)
    labels = _labels(parts)
    both = [labels[e] for e in np.flatnonzero(shared["across"] > SHARED)]
    held = [e for side, e in both if side == "held-out"]
    found = []
    if held:
        reason = f"held-out episodes {listed(held)} share most of their steps with training ones"
        remedy = "remove the copies: the held-out loss would say nothing"
        found.append(Finding("warning", "duplicates", reason, remedy))
    within = np.flatnonzero(shared["within"] > SHARED)
    if len(within):
        reason = (
            f"{len(within)} of {len(labels)} episodes share most of their steps with another: "
            f"{listed([' '.join(map(str, labels[e])) for e in within])}"
        )
        remedy = "remove the copies: they count twice"
        found.append(Finding("warning", "duplicates", reason, remedy))
    return found


def _labels(parts) -> list[Label]:
    train, val = (len(part.ends) for part in parts)
    return [("training", e) for e in range(train)] + [("held-out", e) for e in range(val)]


def _rows(part: Episodes, keys):
    """[N, F]: the columns of an episode's numbers, side by side."""
    return np.concatenate([part.columns[key] for key in keys], axis=1)


def _keys(part: Episodes):
    """The columns of numbers [N, D]."""
    return [key for key, x in part.columns.items() if isinstance(x, np.ndarray) and x.ndim == 2]


def _shared(parts) -> dict[str, np.ndarray]:
    """Shares [E] of an episode's steps that an episode of its side, or of the other, has too.

    Steps that equal the one before them are not counted: all who wait are alike.
    """
    keys = _keys(parts[0])
    rows = np.concatenate([_rows(part, keys) for part in parts]) + 0.0  # -0 is 0
    lengths = np.concatenate([part.lengths for part in parts])
    episode = np.repeat(np.arange(len(lengths)), lengths)
    side = (episode >= len(parts[0].ends)).astype(np.int64)
    counted = np.ones(len(rows), bool)
    counted[1:] = (rows[1:] != rows[:-1]).any(1) | (episode[1:] != episode[:-1])
    whole = np.ascontiguousarray(rows).view(np.dtype((np.void, rows.shape[1] * rows.itemsize)))
    _, group = np.unique(whole.ravel(), return_inverse=True)
    return {
        "within": _mean(_elsewhere(group, side, episode) & counted, counted, episode),
        "across": _mean(_elsewhere(group, np.zeros_like(side), side) & counted, counted, episode),
    }


def _elsewhere(group, side, owner):
    """bool [N]: whether a row's group has, on its side, a row of another owner."""
    cell = group * 2 + side
    low = np.full(cell.max() + 1, np.iinfo(np.int64).max)
    high = np.full(cell.max() + 1, -1)
    np.minimum.at(low, cell, owner)
    np.maximum.at(high, cell, owner)
    return (low != high)[cell]


def _mean(flags, counted, episode):
    return np.bincount(episode, flags) / np.maximum(np.bincount(episode, counted), 1)


def near_duplicates(case: Case) -> list[Finding]:
    """Episodes that run nearly alike from beginning to end: replays, or a motion of no choice."""
    paths, kept = _paths(case)
    if len(kept) < 2:
        return []
    squares = (paths**2).sum(1)
    apart = squares[:, None] + squares - 2 * paths @ paths.T  # [E, E]
    apart = np.sqrt(np.maximum(apart, 0) / paths.shape[1])
    first, second = np.nonzero(np.triu(apart < NEAR, 1))
    equal = _shared((case.train, case.val))
    copied = np.maximum(equal["within"], equal["across"])[kept] > SHARED  # `duplicates` says those
    pairs = [(a, b) for a, b in zip(first, second) if not (copied[a] and copied[b])]
    if not pairs:
        return []
    labels = _labels((case.train, case.val))
    sides = [(labels[kept[a]], labels[kept[b]]) for a, b in pairs]
    across = [f"{b[0]} {b[1]} like {a[0]} {a[1]}" for a, b in sides if a[0] != b[0]]
    texts = across or [f"{a[1]} and {b[1]}" for a, b in sides]
    reason = (
        f"{len(pairs)} pairs of {len(kept)} episodes are alike to {NEAR:g} of the range from "
        f"beginning to end: {listed(texts)}"
    )
    remedy = (
        "remove them, or set another config.data.val_seed: the held-out loss says little"
        if across
        else "start from other places: they teach the same twice"
    )
    return [Finding("warning" if across else "note", "near_duplicates", reason, remedy)]


def _paths(case):
    """([E, F] episodes as POINTS steps in network units, [E] which ones)."""
    keys = _keys(case.train)
    offset, scale = (
        np.concatenate([np.asarray(part[key]) for key in keys])
        for part in (case.normalizer.offset, case.normalizer.scale)
    )
    paths = []
    for part in (case.train, case.val):
        if not len(part.ends):
            continue
        at = np.linspace(0, 1, POINTS) * (part.lengths[:, None] - 1) + part.starts[:, None]
        low = np.floor(at).astype(np.int64)
        high = np.minimum(low + 1, part.ends[:, None] - 1)
        rows, share = _rows(part, keys), (at - low)[..., None]
        x = (rows[low] * (1 - share) + rows[high] * share - offset) / scale
        paths.append(x.reshape(len(x), -1))
    paths = np.concatenate(paths)
    kept = np.arange(0, len(paths), -(-len(paths) // PAIRS))
    return paths[kept], kept


def held_out(case: Case) -> list[Finding]:
    """A held-out loss that one episode decides."""
    if not (case.config.val.every and case.config.data.val_fraction and len(case.val.ends) == 1):
        return []
    reason = "one episode is held out: its loss moves with what happens in it"
    remedy = "raise config.data.val_fraction, where that loss is to choose anything"
    return [Finding("note", "held_out", reason, remedy)]


RULES = (duplicates, near_duplicates, held_out)
