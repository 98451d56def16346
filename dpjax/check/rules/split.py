"""Rules about episodes that are there twice, and on both sides of the split."""

import numpy as np

from dpjax.check.context import Case, Finding, listed
from dpjax.data.episodes import Episodes

SHARED = 0.5  # of an episode's moving steps: so much in common is no coincidence
NEAR = 0.01  # of half the range of each dim, the root of the mean square
POINTS = 24  # of an episode that are compared
PAIRS = 2000  # episodes that are compared with each other; of more, every k-th


def duplicates(case: Case) -> list[Finding]:
    """Episodes that share their steps, exactly: copied, or cut from one recording."""
    parts = (case.train, case.val)
    shared = _shared(parts)
    labels, first = case.labels, len(case.train.ends)
    held = [labels[e] for e in np.flatnonzero(shared["across"] > SHARED) if e >= first]
    found = []
    if held:
        reason = f"held out, but most of their steps are trained on: {listed(held)}"
        remedy = "remove the copies: the held-out loss would say nothing"
        found.append(Finding("warning", "duplicates", reason, remedy))
    within = np.flatnonzero(shared["within"] > SHARED)
    if len(within):
        reason = (
            f"{len(within)} of {len(labels)} episodes share most of their steps with another: "
            f"{listed([labels[e] for e in within])}"
        )
        remedy = "remove the copies: they count twice"
        found.append(Finding("warning", "duplicates", reason, remedy))
    return found


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
    close = np.argwhere(np.triu(apart < NEAR, 1))
    if not len(close):
        return []
    equal = _shared((case.train, case.val))
    copied = np.maximum(equal["within"], equal["across"])[kept] > SHARED  # `duplicates` says those
    pairs = [(kept[a], kept[b]) for a, b in close if not (copied[a] and copied[b])]
    if not pairs:
        return []
    first, labels = len(case.train.ends), case.labels
    texts = [f"{labels[a]} and {labels[b]}" for a, b in pairs]
    across = [text for text, (a, b) in zip(texts, pairs) if a < first <= b]
    reason = (
        f"{len(pairs)} pairs of {len(kept)} episodes are alike throughout (to {NEAR:.0%} "
        f"of half the range): {listed(across or texts)}"
    )
    remedy = (
        "remove them, or set another config.data.val_seed: the held-out loss says little"
        if across
        else "start from other places: they teach the same twice"
    )
    return [Finding("warning" if across else "note", "near_duplicates", reason, remedy)]


def _paths(case):
    """([E, F] episodes as POINTS steps in halves of the range, [E] which ones)."""
    keys = _keys(case.train)
    known = _rows(case.train, keys)
    low, least = known.min(0), case.config.normalize.min_range
    half = np.maximum((known.max(0) - low) / 2, least)
    paths = []
    for part in (case.train, case.val):
        if not len(part.ends):
            continue
        at = np.linspace(0, 1, POINTS) * (part.lengths[:, None] - 1) + part.starts[:, None]
        before = np.floor(at).astype(np.int64)
        after = np.minimum(before + 1, part.ends[:, None] - 1)
        rows, share = _rows(part, keys), (at - before)[..., None]
        x = (rows[before] * (1 - share) + rows[after] * share - low) / half
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
