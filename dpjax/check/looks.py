"""Looks at camera frames: a few pairs of all data, and a few frames of every episode.

The pairs are kept as pixels for the rules and the page. Of the frames of episodes only a few
numbers per frame are kept, so that thousands of episodes need little memory.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from dpjax.data import frames
from dpjax.data.episodes import Episodes
from dpjax.data.frames import Frames

PAIRS = 48  # pairs of consecutive frames per camera, evenly spread over all steps
LOOKS = 3  # frames of an episode: its first, its middle and its last one
MAX_EPISODES = 20_000  # episodes that are looked at; of more, every k-th
BLOCK = 64  # episodes whose frames are in memory at a time
MOTION = 0.05  # share of a dim's range; an episode that moves more must look different


class Looks(NamedTuple):
    """What a few frames of each episode show. K = LOOKS.

    episodes: [n] indices of the episodes that were looked at, in `Context.labels`.
    steps: [n, K] the steps of the frames, counted from 0 in each episode.
    deviation, mean: [n, K] standard deviation and mean of each frame's pixels, 0 to 255.
    same: bool [n], whether all K frames of the episode are equal.
    moved: bool [n], whether any number changes by more than MOTION between the K steps.
    """

    episodes: np.ndarray
    steps: np.ndarray
    deviation: np.ndarray
    mean: np.ndarray
    same: np.ndarray
    moved: np.ndarray


def sample_pairs(train: Episodes) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """PAIRS pairs of consecutive frames per camera: {camera: (steps [n], [n, 2, H, W, 3])}."""
    # All steps but the last one of each episode, which has no next frame.
    steps = np.setdiff1d(np.arange(train.ends[-1]), train.ends - 1)
    if not len(steps):  # all episodes have one step
        return {}
    # Evenly spread over the data; `unique` drops repetitions if there are fewer than PAIRS steps.
    steps = steps[np.unique(np.linspace(0, len(steps) - 1, PAIRS).astype(np.int64))]
    pairs = np.stack([steps, steps + 1], axis=1)  # [n, 2]
    return {name: (steps, x.read(pairs)) for name, x in frames.split(train.columns)[1].items()}


def look_at_episodes(train: Episodes, val: Episodes) -> Mapping[str, Looks]:
    """{camera: Looks} of all episodes, or of every k-th one if there are very many."""
    every = -(-(len(train.ends) + len(val.ends)) // MAX_EPISODES)  # rounded up
    parts = [_look(part, every) for part in (train, val) if len(part.ends)]
    # The held-out episodes are numbered after the training ones, as the labels are.
    for name, look in parts[-1].items() if len(parts) > 1 else ():
        look = look._replace(episodes=look.episodes + len(train.ends))
        parts[0][name] = Looks(*map(np.concatenate, zip(parts[0][name], look)))
    return parts[0]


def _look(part: Episodes, every: int) -> dict[str, Looks]:
    """{camera: Looks} of every `every`-th episode of one part."""
    numbers, images = frames.split(part.columns)
    episodes = np.arange(0, len(part.ends), every)
    # The first, middle and last step of each episode, [n, K].
    steps = (part.lengths[episodes, None] - 1) * np.arange(LOOKS) // (LOOKS - 1)
    at = steps + part.starts[episodes, None]
    moved = np.zeros(len(episodes), bool)
    for x in numbers.values():
        moved |= (np.ptp(x[at], axis=1) > MOTION * np.ptp(x, axis=0)).any(1)
    return {name: Looks(episodes, steps, *_frames(at, x), moved) for name, x in images.items()}


def _frames(steps: np.ndarray, column: Frames) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`deviation`, `mean` and `same` of the frames at steps [n, K] of one camera."""
    deviation = np.zeros(steps.shape)
    mean = np.zeros(steps.shape)
    same = np.zeros(len(steps), bool)
    # In blocks: 20,000 episodes of 240 x 320 px would be 14 GB at once.
    for i in range(0, len(steps), BLOCK):
        pixels = column.read(steps[i : i + BLOCK])  # [b, K, H, W, 3]
        # All pixels of a frame in one axis, of which the statistics are taken.
        flat = pixels.reshape(*pixels.shape[:2], -1)
        deviation[i : i + BLOCK] = flat.std(-1, dtype=np.float32)
        mean[i : i + BLOCK] = flat.mean(-1, dtype=np.float64)
        same[i : i + BLOCK] = (flat == flat[:, :1]).all((1, 2))
    return deviation, mean, same
