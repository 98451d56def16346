"""What a conversion writes: a source of episodes, and how the data set describes itself."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

# The key of a request that tells whether the files of the source are those of the last start.
SOURCE_STATE = "state of the source"


class Conversion(NamedTuple):
    """The input of `write`: a source of episodes, and how the data set describes itself.

    request: the arguments and the state of the source (SOURCE_STATE), as JSON. An interrupted
        conversion is only continued with the same arguments.
    num_episodes: the number of episodes in the source.
    read: number of an episode -> {key: [T, ...]}, float32 or images.
    metadata: number of an episode -> {name: scalar}.
    observations: the keys that go under steps/observation.
    description: text about the data set, for its users.
    set_metadata: {name: scalar} of the data set as a whole, for its metadata.json.
    skip_bad: leave bad episodes out instead of refusing all.
    label: number of an episode -> how messages call it.
    """

    request: Mapping[str, Any]
    num_episodes: int
    read: Callable[[int], Mapping[str, np.ndarray]]
    metadata: Callable[[int], Mapping[str, Any]]
    observations: Sequence[str]
    description: str
    set_metadata: Mapping[str, Any]
    skip_bad: bool = False
    label: Callable[[int], str] = "episode {}".format
