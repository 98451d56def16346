"""Which data sets a config names, in which shares, and which of their columns it uses."""

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
    """{directory: weight} of the section config.data, in order.

    A weight is None where the shares follow from the sizes of the data sets.
    """
    names = [name.strip() for name in data.dir.split(",") if name.strip()]
    if names and Path(data.dir).is_dir():
        names = [data.dir]  # one directory with a comma in its name
    if not names:
        raise UserError("config.data.dir is empty: give an RLDS directory (--config.data.dir=…).")
    if len(set(names)) < len(names):
        raise UserError(f"config.data.dir={data.dir!r} names a directory twice.")
    # A limit on episodes could be met in many ways by several sets.
    if len(names) > 1 and data.max_episodes:
        raise UserError(
            f"config.data.max_episodes={data.max_episodes} goes with one data set, and "
            f"config.data.dir names {len(names)}: set it to 0, and give weights."
        )
    return dict(zip(names, weights(data.get("weights", ""), names)))


def weights(text: str, names: list[str]) -> list[float | None]:
    """config.data.weights, one number for each data set; None for each where the text is ""."""
    if not text:
        return [None] * len(names)
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
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

    Where a task observes whatever there is and the config names no columns, they become the data
    set's observation/* and action, and images become cameras.
    """
    config = config.copy_and_resolve_references()  # the caller's stays as it is
    if config.data.columns or tasks.get(config.task).columns:
        return config
    # Of several data sets the first one decides; `mixture.join` refuses others that differ.
    directory = next(iter(directories(config.data)))
    usable = reader.usable(directory)
    # A shape is None where the data set does not promise one.
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
    # "observation/state" becomes the column "state", and an image a camera that is not cropped.
    with config.unlocked():
        for path, shape in shapes.items():
            name = path.removeprefix("observation/").replace("/", "_")
            config.data.columns[name] = path
            if (shape is None or len(shape) == 3) and name not in config.cameras:
                config.cameras[name] = _camera(f"{directory}: {path}", shape)
    listed = ", ".join(f"{path} {list(shape or ())}" for path, shape in shapes.items())
    log.info("%s: config.data.columns is empty: using all of %s", directory, listed)
    return config


def _camera(where: str, shape: tuple[int, ...] | None) -> ConfigDict:
    """The section of config.cameras for images that the network sees whole."""
    if shape is None:
        raise UserError(
            f"{where}: images of which the data set promises no size: name it as "
            "config.cameras.<key> = dict(size=(height, width), resize=(), crop=()) in a config "
            "file, and its path in config.data.columns."
        )
    return ConfigDict(dict(size=shape[:2], resize=(), crop=()))
