"""One episode as RLDS nests it, and the tfds features that describe it."""

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
    """One episode {key: [T, ...]} as RLDS nests it.

    metadata: scalars of the episode. where: names the episode in errors about them.
    """
    # Episodes without metadata have no such key, and the features say the same.
    nested: dict[str, Any] = {"steps": _steps(columns, observations)}
    if metadata:
        nested["episode_metadata"] = _scalars(metadata, where)
    return nested


def features(tree: Mapping[str, Any], of_step: bool) -> dict[str, Any]:
    """The tfds features of {key: [T, ...]} (of_step) or of {key: scalar}, nested or not."""
    tfds = extras.require("tensorflow_datasets", extra="data")
    described: dict[str, Any] = {}
    for key, x in tree.items():
        # Nested dicts, text, encoded images, and numbers.
        if isinstance(x, Mapping):
            described[key] = features(x, of_step)
        elif isinstance(x, str):
            described[key] = tfds.features.Text()
        elif isinstance(x, list):  # of PNGs
            # Every image has the size of the first; reading refuses others.
            height, width = images.size(x[0])
            described[key] = tfds.features.Image(
                shape=(height, width, 3), dtype=np.uint8, encoding_format="png"
            )
        else:
            shape = x.shape[1:] if of_step else ()
            described[key] = tfds.features.Tensor(shape=shape, dtype=x.dtype)
    return described


def _steps(columns: Mapping[str, np.ndarray], observations: Sequence[str]) -> dict[str, Any]:
    """The steps of one episode: observations nested, the other columns, and RLDS's flags."""
    # All columns have the same number of steps; `check_episode` has seen to it.
    step = np.arange(len(next(iter(columns.values()))))
    others = {key: x for key, x in columns.items() if key not in observations}
    return {
        "observation": {key: _encode(columns[key]) for key in observations},
        **{key: _encode(x) for key, x in others.items()},
        "is_first": step == 0,
        "is_last": step == step[-1],
        # In RLDS the action of a terminal step has no meaning; here every action has one.
        "is_terminal": np.zeros(len(step), bool),
    }


def _encode(x: np.ndarray) -> np.ndarray | list[bytes]:
    """Images as PNGs; numbers as they are."""
    return images.encode_all(x) if checks.is_image(x.shape[1:], x.dtype) else x


def _scalars(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Metadata as int64, float32, bool or str; a UserError for anything else."""
    dtypes = {bool: np.bool_, int: np.int64, float: np.float32}
    # tfds wants a numpy type for each, and every episode must have the same ones.
    scalars = {}
    for key, x in item.items():
        x = x.item() if isinstance(x, (np.generic, np.ndarray)) else x
        if not isinstance(x, (str, *dtypes)):
            raise UserError(f"{where}: metadata {key}: expected a scalar, got {x!r}.")
        scalars[key] = x if isinstance(x, str) else np.asarray(x, dtypes[type(x)])
    return scalars
