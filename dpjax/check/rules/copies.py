"""Rules about episodes that are equal, or nearly equal."""

import numpy as np

from dpjax.check.context import Context, Finding, enumerate_some, leave_out
from dpjax.core import scaling
from dpjax.data.episodes import Episodes

SHARED = 0.5  # share of an episode's moving steps; more equal ones are not a coincidence
NEAR = 0.01  # root mean square distance of two paths, in halves of each dim's range
POINTS = 24  # points to which each episode is resampled for a comparison
MAX_EPISODES = 2000  # episodes that are compared in pairs; of more, every k-th


def duplicate_episodes(context: Context) -> list[Finding]:
    """Finds episodes that share most of their steps exactly, such as copies of one recording.

    Why: two copies in training count twice. A copy on either side of the split means that the
    held-out error is measured on training data.
    Remedy: remove the copies.
    """
    shared = _shared_steps((context.train, context.val))
    labels = context.labels
    num_train = len(context.train.ends)
    findings = []
    # Across the split both copies are found; only the held-out one is reported.
    across = np.flatnonzero(shared["across"] > SHARED)
    held_out = [labels[e] for e in across if e >= num_train]
    if held_out:
        reason = f"held out, but most of their steps are trained on: {enumerate_some(held_out)}"
        leave, changes = leave_out(context, [e for e in across if e >= num_train])
        remedy = f"otherwise the held-out error says nothing: {leave}"
        findings.append(Finding("warning", "duplicate_episodes", reason, remedy, changes))
    # On one side of the split all copies are reported, since the original is not known.
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
    """The names of the columns of numbers [N, D]."""
    return [key for key, x in part.columns.items() if isinstance(x, np.ndarray) and x.ndim == 2]


def _side_by_side(part: Episodes, keys: list[str]) -> np.ndarray:
    """Concatenates columns of numbers [N, D] to [N, F]."""
    return np.concatenate([part.columns[key] for key in keys], axis=1)


def _shared_steps(parts: tuple[Episodes, Episodes]) -> dict[str, np.ndarray]:
    """For each episode, the share of its steps that also occur in other episodes.

    parts: the training episodes and the held-out ones, E in all.
    Returns {"within": [E], "across": [E]}: the share that occurs in another episode on the same
    side of the split, and on the other side. Steps that equal the step before are not counted,
    since waiting looks the same in all episodes.
    """
    # Both sides in one array.
    keys = _number_keys(parts[0])
    steps = np.concatenate([_side_by_side(part, keys) for part in parts]) + 0.0  # -0 becomes 0
    lengths = np.concatenate([part.lengths for part in parts])
    # [N] each step's episode, and its side of the split (0: training, 1: held out).
    episode = np.repeat(np.arange(len(lengths)), lengths)
    side = (episode >= len(parts[0].ends)).astype(np.int64)
    moving = np.ones(len(steps), bool)  # the first step of an episode always counts
    moving[1:] = (steps[1:] != steps[:-1]).any(1) | (episode[1:] != episode[:-1])

    # Equal steps get the same group. Each step's bytes are viewed as one item, so that `unique`
    # compares whole steps.
    width = steps.shape[1] * steps.itemsize
    items = np.ascontiguousarray(steps).view(np.dtype((np.void, width)))
    _, group = np.unique(items.ravel(), return_inverse=True)  # [N]
    # The same step on the two sides is two groups for "within", and one for "across".
    within = _occurs_elsewhere(group * 2 + side, episode)
    across = _occurs_elsewhere(group, side)
    return {
        "within": _share_per_episode(within & moving, moving, episode),
        "across": _share_per_episode(across & moving, moving, episode),
    }


def _occurs_elsewhere(group, owner):
    """bool [N]: whether the group of each step also has steps of another owner.

    group, owner: [N] of each step.
    """
    # A group with several owners has different lowest and highest owners.
    lowest = np.full(group.max() + 1, np.iinfo(np.int64).max)
    highest = np.full(group.max() + 1, -1)
    np.minimum.at(lowest, group, owner)
    np.maximum.at(highest, group, owner)
    return (lowest != highest)[group]


def _share_per_episode(flags, counted, episode):
    """[E]: in each episode, the number of flagged steps divided by that of counted steps."""
    return np.bincount(episode, flags) / np.maximum(np.bincount(episode, counted), 1)


def near_duplicates(context: Context) -> list[Finding]:
    """Finds pairs of episodes that are nearly equal from start to end.

    Why: replays of one recording, or one motion repeated from the same initial state, add
    nothing. Across the split they make the held-out error meaningless.
    Remedy: record from other initial states, or split in another way.
    """
    paths, episodes = _paths(context)
    if len(episodes) < 2:
        return []
    # Distances of all pairs [E, E], by |a - b|^2 = |a|^2 + |b|^2 - 2 a·b.
    squares = (paths**2).sum(1)  # [E]
    distances = squares[:, None] + squares - 2 * paths @ paths.T
    distances = np.sqrt(np.maximum(distances, 0) / paths.shape[1])
    # The upper triangle has each pair once, with a < b.
    close = np.argwhere(np.triu(distances < NEAR, 1))
    if not len(close):
        return []
    # Exact copies are reported by `duplicate_episodes`.
    shared = _shared_steps((context.train, context.val))
    copied = np.maximum(shared["within"], shared["across"])[episodes] > SHARED
    pairs = [(episodes[a], episodes[b]) for a, b in close if not (copied[a] and copied[b])]
    if not pairs:
        return []
    num_train = len(context.train.ends)
    texts = [f"{context.labels[a]} and {context.labels[b]}" for a, b in pairs]
    # Training episodes come first, so a pair across the split has a < num_train <= b.
    across = [text for text, (a, b) in zip(texts, pairs) if a < num_train <= b]
    reason = (
        f"{len(pairs)} pairs of {len(episodes)} episodes are nearly equal (to {NEAR:.0%} of half "
        f"the range): {enumerate_some(across or texts)}"
    )
    if across:
        remedy = "remove them, or change config.data.val_seed: the held-out error says little"
        return [Finding("warning", "near_duplicates", reason, remedy)]
    remedy = "record from other initial states: two equal episodes teach no more than one"
    return [Finding("note", "near_duplicates", reason, remedy)]


def _paths(context):
    """Resamples all episodes to POINTS points, for comparisons of whole episodes.

    Returns paths [E, POINTS * F], in units of half of each dim's range, and the indices [E] of
    their episodes.
    """
    keys = _number_keys(context.train)
    train = _side_by_side(context.train, keys)
    # Scaled as by "limits", with the range of the training steps.
    low = train.min(0)  # [F]
    least = scaling.CONSTANT * np.abs(train).max(0) + np.finfo(np.float32).tiny
    half = np.maximum((train.max(0) - low) / 2, least)
    paths = []
    for part in (context.train, context.val):
        if not len(part.ends):
            continue
        # Places [E, POINTS] of the points, evenly spaced over each episode. They lie between two
        # steps, so values are interpolated linearly.
        at = np.linspace(0, 1, POINTS) * (part.lengths[:, None] - 1) + part.starts[:, None]
        before = np.floor(at).astype(np.int64)
        after = np.minimum(before + 1, part.ends[:, None] - 1)
        weight = (at - before)[..., None]  # [E, POINTS, 1]
        steps = _side_by_side(part, keys)  # [N, F]
        x = (steps[before] * (1 - weight) + steps[after] * weight - low) / half
        paths.append(x.reshape(len(x), -1))  # [E, POINTS * F]
    paths = np.concatenate(paths)
    # MAX_EPISODES limits the memory: 2000^2 distances.
    kept = np.arange(0, len(paths), -(-len(paths) // MAX_EPISODES))
    return paths[kept], kept
