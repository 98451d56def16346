"""A small conversion, for the tests that interrupt it in this process and in others."""

import numpy as np

from dpjax.data.rlds import resumable_writer

EPISODES = 11


def read(number):
    """Episode `number` of the source: numbers and a camera."""
    rng = np.random.default_rng(number)
    length = 3 + number % 4
    return {
        "state": rng.normal(size=(length, 5)).astype(np.float32),
        "camera": rng.integers(0, 256, (length, 6, 4, 3), np.uint8),
        "action": rng.normal(size=(length, 2)).astype(np.float32),
    }


def conversion(read=read, **request):
    """The conversion of that source."""
    return resumable_writer.Conversion(
        request={"source": "made up", **request},
        num_episodes=EPISODES,
        read=read,
        metadata=lambda number: {"task": f"task {number}"},
        observations=("state", "camera"),
        description="made up",
        set_metadata={"fps": 10.0},
    )


def accept(path, digests):
    """A verification that finds no fault."""
