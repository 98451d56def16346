"""An episode as the nested dict that RLDS stores, and the tfds features that describe it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dpjax.core import extras
from dpjax.core.errors import UserError
from dpjax.data import checks, images

FLAGS = ("is_first", "is_last", "is_terminal")  # of every step


def example(
    columns: Mapping[str, np.ndarray],
    observations: Sequence[str],
    metadata: Mapping[str, Any] | None = None,
    where: str = "",
) -> dict[str, Any]:
    """An episode {key: [T, ...]} as the nested dict that RLDS stores.

    observations: the keys that go under steps/observation.
    metadata: scalars of the episode.
    where: how errors about the metadata name the episode.
    """
    # Without metadata the key is left out, here and in the features.
    nested: dict[str, Any] = {"steps": _steps(columns, observations)}
    if metadata:
        nested["episode_metadata"] = _scalars(metadata, where)
    return nested


def features(tree: Mapping[str, Any], of_step: bool) -> dict[str, Any]:
    """The tfds features that describe a dict, which may be nested.

    of_step: whether the leaves are [T, ...], of which the features describe one step; otherwise
        they are scalars.
    """
    tfds = extras.require("tensorflow_datasets", extra="data")
    described: dict[str, Any] = {}
    for key, x in tree.items():
        # A nested dict, text, a list of PNGs, or an array of numbers.
        if isinstance(x, Mapping):
            described[key] = features(x, of_step)
        elif isinstance(x, str):
            described[key] = tfds.features.Text()
        elif isinstance(x, list):
            # All images are declared with the size of the first one, which reading checks.
            height, width = images.size(x[0])
            described[key] = tfds.features.Image(
                shape=(height, width, 3), dtype=np.uint8, encoding_format="png"
            )
        else:
            # The first axis, of the steps, is not part of the feature of one step.
            shape = x.shape[1:] if of_step else ()
            described[key] = tfds.features.Tensor(shape=shape, dtype=x.dtype)
    return described


def _steps(columns: Mapping[str, np.ndarray], observations: Sequence[str]) -> dict[str, Any]:
    """The steps of an episode: nested observations, the other columns, and RLDS's flags."""
    # All columns have the same number of steps: `check_episode` was called before.
    step = np.arange(len(next(iter(columns.values()))))
    others = {key: x for key, x in columns.items() if key not in observations}
    return {
        # Images become lists of PNGs.
        "observation": {key: _encode(columns[key]) for key in observations},
        **{key: _encode(x) for key, x in others.items()},
        # RLDS's flags, bool [T].
        "is_first": step == 0,
        "is_last": step == step[-1],
        # RLDS defines that a terminal step has no valid action. Here every action is valid, so no
        # step is terminal.
        "is_terminal": np.zeros(len(step), bool),
    }


def _encode(x: np.ndarray) -> np.ndarray | list[bytes]:
    """Images as PNGs; numbers as they are."""
    return images.encode_all(x) if checks.is_image(x.shape[1:], x.dtype) else x


def _scalars(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Metadata as int64, float32, bool or str; a UserError for any other type."""
    # A fixed numpy type per Python type, so that all episodes have the same features.
    dtypes = {bool: np.bool_, int: np.int64, float: np.float32}
    scalars = {}
    for key, x in item.items():
        # Numpy's scalars and arrays of one element become Python's types first.
        x = x.item() if isinstance(x, (np.generic, np.ndarray)) else x
        if not isinstance(x, (str, *dtypes)):
            raise UserError(f"{where}: metadata {key}: expected a scalar, got {x!r}.")
        scalars[key] = x if isinstance(x, str) else np.asarray(x, dtypes[type(x)])
    return scalars
