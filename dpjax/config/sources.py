"""The data sets that a config names: their directories, weights and columns."""

from collections.abc import Mapping
import itertools
import logging
import math
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
import numpy as np

from dpjax import tasks
from dpjax.config.arguments import names_keys
from dpjax.core.errors import UserError
from dpjax.core.types import ACTION
from dpjax.data import counters
from dpjax.data.rlds import reader

EPISODES = 32  # first episodes that are looked at for columns that show the future

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
def resolved(config: ConfigDict, begun: ConfigDict | None = None) -> ConfigDict:
    """A copy of the config in which config.data.columns is not empty.

    If the config names no columns and the task observes all of them, the columns become
    observation/* and action of the data set, but for its own counts, clocks and future (see
    `data.counters`). Each image also becomes a camera.

    begun: the config of the run that goes on, whose columns and cameras are kept; None for a new
        run.
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
    if begun is not None:
        return _as_begun(config, begun, directory, shapes)
    shapes = _without_own(directory, shapes)
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
            name = _name_of(path)
            config.data.columns[name] = path
            # An image without a declared size is refused by `_camera`, unless the config has it.
            if (shape is None or len(shape) == 3) and name not in config.cameras:
                config.cameras[name] = _camera(f"{directory}: {path}", shape)
    listed = ", ".join(f"{path} {list(shape or ())}" for path, shape in shapes.items())
    log.info("%s: config.data.columns is empty: using all of %s", directory, listed)
    return config


def _name_of(path: str) -> str:
    """The column of a path inside a step: "observation/a/b" -> "a_b"."""
    return path.removeprefix("observation/").replace("/", "_")


def _as_begun(
    config: ConfigDict, begun: ConfigDict, directory: str, shapes: Mapping[str, Any]
) -> ConfigDict:
    """The config with the columns and cameras that its run began with; others are listed."""
    with config.unlocked():
        config.data.columns = begun.data.columns
        config.cameras = ConfigDict({**begun.cameras, **config.cameras})
    kept = set(begun.data.columns.values())
    others = [path for path in shapes if path not in kept]
    more = f"; the data also has {', '.join(others)}" if others else ""
    log.info("%s: the columns that the run began with%s", directory, more)
    return config


def _without_own(directory: str, shapes: Mapping[str, Any]) -> dict[str, Any]:
    """The columns without the data set's own counts, clocks and future; these are listed."""
    reasons = {path: "counts or clocks" for path in shapes if counters.is_counter(path)}
    numbers = {
        path: path
        for path, shape in shapes.items()
        if path != ACTION and path not in reasons and shape is not None and len(shape) < 3
    }
    for path, other in _ends(directory, numbers).items():
        reasons[path] = f"the end of {other} in every step"
    if reasons:
        listed = ", ".join(f"{path} ({why})" for path, why in reasons.items())
        log.warning("%s: not observed unless config.data.columns names it: %s", directory, listed)
    return {path: shape for path, shape in shapes.items() if path not in reasons}


def _ends(directory: str, numbers: Mapping[str, str]) -> dict[str, str]:
    """{path: the path whose last step it repeats}, from the first episodes of the data set."""
    # One column shows no other's end. What the reader warns of is said when all is read.
    if len(numbers) < 2:
        return {}
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        episodes = reader.stream(directory, features=numbers)
        first = list(itertools.islice(episodes, EPISODES))
    except UserError:
        return {}  # bad data, or another split: refused or skipped when all of it is read
    finally:
        log.setLevel(level)
    columns = {
        path: np.concatenate([np.reshape(x[path], (len(x[path]), -1)) for x in first])
        for path in numbers
    }
    lengths = [len(x[next(iter(numbers))]) for x in first]
    return counters.ends_of_episodes(columns, np.cumsum(lengths))


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
