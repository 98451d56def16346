"""Rules about the set of episodes: how many, how long, copies, and the held-out ones."""

import numpy as np

from dpjax.check.context import Context, Finding, count, enumerate_some
from dpjax.data.episodes import Episodes

VERY_FEW = 5  # episodes: the policy learns nothing but these
FEW = 20  # episodes: generalization cannot be expected
ODD_LENGTH = 5.0  # times the median length, or less than its inverse
SHARED = 0.5  # of an episode's moving steps: so many equal ones are not a coincidence
NEAR = 0.01  # root mean square distance, in halves of each dim's range
POINTS = 24  # steps of an episode that are compared
MAX_EPISODES = 2000  # that are compared with each other; of more, every k-th


def few_episodes(context: Context) -> list[Finding]:
    """Finds data sets of so few episodes that the policy only knows these.

    Why: what lies between the recorded starts is a guess.
    Remedy: record more episodes, from other starts.
    """
    number = len(context.train.ends)
    if number >= FEW:
        return []
    reason = f"{count(number, 'episode')} to train on"
    remedy = "record more, from other starts: what lies between the recorded ones is a guess"
    severity = "warning" if number < VERY_FEW else "note"
    return [Finding(severity, "few_episodes", reason, remedy)]


def odd_lengths(context: Context) -> list[Finding]:
    """Finds episodes that are far longer or shorter than the others.

    Why: a recording that was not stopped, or was stopped too early.
    Remedy: look at them.
    """
    lengths = context.train.lengths
    median = np.median(lengths)
    # The median is not moved by the odd ones themselves.
    odd = np.flatnonzero((lengths > ODD_LENGTH * median) | (lengths * ODD_LENGTH < median))
    if not len(odd):
        return []
    labels = enumerate_some([context.labels[e] for e in odd])
    steps = enumerate_some(lengths[odd].tolist())
    reason = f"{labels} have {steps} steps; the median has {median:g}"
    remedy = "look at them: a recording that was not stopped, or was stopped too early"
    return [Finding("note", "odd_lengths", reason, remedy)]


def short_episodes(context: Context) -> list[Finding]:
    """Finds episodes that are shorter than a window.

    Why: their windows are padded with copies of the first and last step, and a policy that
    learns from copies learns to stop.
    Remedy: leave them out, predict fewer steps, or leave copies out of the loss.
    """
    horizon = context.config.horizon
    lengths = context.train.lengths
    # As in the paper's code, a window may begin To - 1 steps early and end Ta - 1 steps late.
    needed = horizon.predict - (horizon.obs - 1) - (horizon.act - 1)
    # Shorter episodes are padded more than the paper pads at the edges.
    short = np.flatnonzero(lengths < needed)
    if not len(short):
        return []
    reason = (
        f"{len(short)} of {len(lengths)} training episodes have fewer than the {needed} steps of "
        f"a window (the shortest {lengths.min()}) and are padded: "
        f"{enumerate_some([context.labels[e] for e in short])}"
    )
    remedy = "leave them out, lower config.horizon.predict, or set config.loss.mask_padding=True"
    return [Finding("warning", "short_episodes", reason, remedy)]


def one_held_out(context: Context) -> list[Finding]:
    """Finds a held-out error that a single episode decides.

    Remedy: hold out more, if the error is to choose a checkpoint or a setting.
    """
    config = context.config
    measured = config.val.every and config.data.val_fraction
    if not measured or len(context.val.ends) != 1:
        return []
    reason = "one episode is held out: the held-out error depends on this episode alone"
    remedy = "raise config.data.val_fraction if that error is to choose anything"
    return [Finding("note", "one_held_out", reason, remedy)]


def duplicate_episodes(context: Context) -> list[Finding]:
    """Finds episodes that share most of their steps exactly: copies, or cuts of one recording.

    Why: within training they count twice; across the split the held-out error is measured on
    what was trained on.
    Remedy: remove the copies.
    """
    shared = _shared_steps((context.train, context.val))
    labels = context.labels
    num_train = len(context.train.ends)
    findings = []
    # Both copies are flagged; the held-out one is the one that matters.
    across = np.flatnonzero(shared["across"] > SHARED)
    held_out = [labels[e] for e in across if e >= num_train]
    if held_out:
        reason = f"held out, but most of their steps are trained on: {enumerate_some(held_out)}"
        remedy = "remove the copies: otherwise the held-out error says nothing"
        findings.append(Finding("warning", "duplicate_episodes", reason, remedy))
    # Within a side there is no telling which one is the original.
    within = np.flatnonzero(shared["within"] > SHARED)
    if len(within):
        reason = (
            f"{len(within)} of {len(labels)} episodes share most of their steps with another: "
            f"{enumerate_some([labels[e] for e in within])}"
        )
        remedy = "remove the copies: they count twice"
        findings.append(Finding("warning", "duplicate_episodes", reason, remedy))
    return findings


def _number_keys(part: Episodes) -> list[str]:
    """The columns of numbers [N, D]."""
    return [key for key, x in part.columns.items() if isinstance(x, np.ndarray) and x.ndim == 2]


def _side_by_side(part: Episodes, keys: list[str]) -> np.ndarray:
    """[N, F]: the columns of numbers, next to each other."""
    return np.concatenate([part.columns[key] for key in keys], axis=1)


def _shared_steps(parts: tuple[Episodes, Episodes]) -> dict[str, np.ndarray]:
    """For each episode of both sides the shares [E] of its steps that also occur elsewhere.

    "within": in another episode of the same side. "across": on the other side. Steps that equal
    the one before them are not counted, since all episodes that wait are alike.
    """
    keys = _number_keys(parts[0])
    steps = np.concatenate([_side_by_side(part, keys) for part in parts]) + 0.0  # -0 becomes 0
    lengths = np.concatenate([part.lengths for part in parts])
    episode = np.repeat(np.arange(len(lengths)), lengths)  # [N], of each step
    side = (episode >= len(parts[0].ends)).astype(np.int64)  # [N], 0 train, 1 held out
    moving = np.ones(len(steps), bool)  # the first step of an episode always counts
    moving[1:] = (steps[1:] != steps[:-1]).any(1) | (episode[1:] != episode[:-1])

    # Equal steps get the same group: each step's bytes are compared as one item.
    width = steps.shape[1] * steps.itemsize
    items = np.ascontiguousarray(steps).view(np.dtype((np.void, width)))
    _, group = np.unique(items.ravel(), return_inverse=True)  # [N]
    within = _occurs_elsewhere(group * 2 + side, episode)
    across = _occurs_elsewhere(group, side)
    return {
        "within": _share_per_episode(within & moving, moving, episode),
        "across": _share_per_episode(across & moving, moving, episode),
    }


def _occurs_elsewhere(group, owner):
    """bool [N]: whether a step's group has a step of another owner."""
    # The lowest and the highest owner of a group differ if it has more than one.
    lowest = np.full(group.max() + 1, np.iinfo(np.int64).max)
    highest = np.full(group.max() + 1, -1)
    np.minimum.at(lowest, group, owner)
    np.maximum.at(highest, group, owner)
    return (lowest != highest)[group]


def _share_per_episode(flags, counted, episode):
    """[E]: flagged steps over counted steps."""
    return np.bincount(episode, flags) / np.maximum(np.bincount(episode, counted), 1)


def near_duplicates(context: Context) -> list[Finding]:
    """Finds pairs of episodes that are nearly alike from start to end.

    Why: replays of one recording, or one motion repeated from one start, teach the same twice;
    across the split the held-out error says little.
    Remedy: start from other places, or split otherwise.
    """
    paths, episodes = _paths(context)
    if len(episodes) < 2:
        return []
    # |a - b|^2 = |a|^2 + |b|^2 - 2 a b, for all pairs at once: [E, E]
    squares = (paths**2).sum(1)  # [E]
    distances = squares[:, None] + squares - 2 * paths @ paths.T
    distances = np.sqrt(np.maximum(distances, 0) / paths.shape[1])
    # The upper triangle has each pair once.
    close = np.argwhere(np.triu(distances < NEAR, 1))
    if not len(close):
        return []
    # `duplicate_episodes` reports exact copies.
    shared = _shared_steps((context.train, context.val))
    copied = np.maximum(shared["within"], shared["across"])[episodes] > SHARED
    pairs = [(episodes[a], episodes[b]) for a, b in close if not (copied[a] and copied[b])]
    if not pairs:
        return []
    num_train = len(context.train.ends)
    texts = [f"{context.labels[a]} and {context.labels[b]}" for a, b in pairs]
    # Training episodes have the lower numbers, and a < b.
    across = [text for text, (a, b) in zip(texts, pairs) if a < num_train <= b]
    reason = (
        f"{len(pairs)} pairs of {len(episodes)} episodes are alike throughout (to {NEAR:.0%} of "
        f"half the range): {enumerate_some(across or texts)}"
    )
    if across:
        remedy = "remove them, or change config.data.val_seed: the held-out error says little"
        return [Finding("warning", "near_duplicates", reason, remedy)]
    remedy = "start from other places: these teach the same twice"
    return [Finding("note", "near_duplicates", reason, remedy)]


def _paths(context):
    """Episodes resampled to POINTS steps, and their numbers.

    Returns [E, POINTS * F] in halves of each dim's range, and [E].
    """
    keys = _number_keys(context.train)
    train = _side_by_side(context.train, keys)
    low = train.min(0)  # [F]; held-out episodes are scaled the same way
    # The units of "limits": a distance of 0.01 is half a percent of a dim's range.
    half = np.maximum((train.max(0) - low) / 2, context.config.normalize.min_range)
    paths = []
    for part in (context.train, context.val):
        if not len(part.ends):
            continue
        # Linear interpolation between the two recorded steps around each point: [E, POINTS]
        at = np.linspace(0, 1, POINTS) * (part.lengths[:, None] - 1) + part.starts[:, None]
        before = np.floor(at).astype(np.int64)
        after = np.minimum(before + 1, part.ends[:, None] - 1)
        weight = (at - before)[..., None]  # [E, POINTS, 1]
        steps = _side_by_side(part, keys)  # [N, F]
        x = (steps[before] * (1 - weight) + steps[after] * weight - low) / half
        paths.append(x.reshape(len(x), -1))  # [E, POINTS * F]
    paths = np.concatenate(paths)
    # All pairs of MAX_EPISODES fit into memory: 4 million distances.
    kept = np.arange(0, len(paths), -(-len(paths) // MAX_EPISODES))
    return paths[kept], kept
