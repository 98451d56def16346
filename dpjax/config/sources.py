"""The data sets that a config names: their directories, weights and columns."""

import logging
import math
from pathlib import Path

from ml_collections import ConfigDict

from dpjax import tasks
from dpjax.config.arguments import names_keys
from dpjax.core.errors import UserError
from dpjax.core.types import ACTION
from dpjax.data.rlds import reader

log = logging.getLogger("dpjax")


def directories(data: ConfigDict) -> dict[str, float | None]:
    """{directory: weight}, in the order of config.data.dir.

    data: the section config.data. Without weights, each weight is None: the share of a data set in
    a batch then follows from its size.
    """
    # Commas separate directories.
    names = [name.strip() for name in data.dir.split(",") if name.strip()]
    if names and Path(data.dir).is_dir():
        names = [data.dir]  # a directory with a comma in its name
    if not names:
        raise UserError("config.data.dir is empty: give an RLDS directory (--config.data.dir=…).")
    if len(set(names)) < len(names):
        raise UserError(f"config.data.dir={data.dir!r} names a directory twice.")
    # It would be unclear how several data sets share a limit on episodes.
    if len(names) > 1 and data.max_episodes:
        raise UserError(
            f"config.data.max_episodes={data.max_episodes} goes with one data set, and "
            f"config.data.dir names {len(names)}: set it to 0, and give weights."
        )
    return dict(zip(names, weights(data.get("weights", ""), names)))


def weights(text: str, names: list[str]) -> list[float | None]:
    """The weights of the data sets `names`.

    text: config.data.weights, such as "2,1"; "" gives None for each data set.
    """
    if not text:
        return [None] * len(names)
    # A text that is not a list of numbers gives the same error as a wrong number of them.
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    # A weight of 0 would be a data set that is read and never used.
    if len(numbers) != len(names) or not all(math.isfinite(x) and x > 0 for x in numbers):
        raise UserError(
            f"config.data.weights={text!r} must be {len(names)} numbers above 0 with commas "
            f"between them, one for each directory of config.data.dir={','.join(names)!r}; '' for "
            "shares like the sizes'."
        )
    return numbers


@names_keys()
def resolved(config: ConfigDict) -> ConfigDict:
    """A copy of the config in which config.data.columns is not empty.

    If the config names no columns and the task observes all of them, the columns become
    observation/* and action of the data set. Each image also becomes a camera.
    """
    # A copy, so that the config of the caller does not change.
    config = config.copy_and_resolve_references()
    if config.data.columns or tasks.get(config.task).columns:
        return config
    # 1. The columns of the first data set. `mixture.join` refuses data sets whose columns differ.
    directory = next(iter(directories(config.data)))
    usable = reader.usable(directory)
    # The shape of a column is None if the data set does not declare one.
    shapes = {
        path: shape
        for path, shape in usable.items()
        if path == ACTION or path.startswith("observation/")
    }
    if ACTION not in shapes or len(shapes) < 2:
        raise UserError(
            f"{directory}: expected action and observation/* in its steps, got "
            f"{', '.join(usable)}: name their paths, "
            "--config.data.columns.action=PATH --config.data.columns.NAME=PATH."
        )
    # 2. The config: "observation/state" becomes the column "state". A column with three axes
    # (height, width, color) becomes a camera without a crop.
    with config.unlocked():
        for path, shape in shapes.items():
            name = path.removeprefix("observation/").replace("/", "_")
            config.data.columns[name] = path
            # An image without a declared size is refused by `_camera`, unless the config has it.
            if (shape is None or len(shape) == 3) and name not in config.cameras:
                config.cameras[name] = _camera(f"{directory}: {path}", shape)
    listed = ", ".join(f"{path} {list(shape or ())}" for path, shape in shapes.items())
    log.info("%s: config.data.columns is empty: using all of %s", directory, listed)
    return config


def _camera(where: str, shape: tuple[int, ...] | None) -> ConfigDict:
    """The section of config.cameras for images that are neither resized nor cropped.

    where: the data set and column, for errors. shape: [H, W, 3], or None if it is not declared.
    """
    if shape is None:
        raise UserError(
            f"{where}: images of which the data set promises no size: name it as "
            "config.cameras.<key> = dict(size=(height, width), resize=(), crop=()) in a config "
            "file, and its path in config.data.columns."
        )
    return ConfigDict(dict(size=shape[:2], resize=(), crop=()))
