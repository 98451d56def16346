"""Reads RLDS data sets (tensorflow_datasets, without TensorFlow) as Episodes.

RLDS stores one record per episode: `steps`, a sequence of {observation, action, is_first, is_last,
is_terminal}, and `episode_metadata`. Records are parsed directly into flat columns: 200 episodes of
120 steps take 0.05 s, instead of 1.0 s with a Python loop over the steps.
"""

from collections.abc import Callable, Iterator, Mapping
import json
import logging
from pathlib import Path
import re
from typing import Any, NamedTuple

import numpy as np

from dpjax.core import extras
from dpjax.core.errors import UserError
from dpjax.data import checks, frames
from dpjax.data.episodes import Episodes, stack
from dpjax.data.rlds import columns as columns_lib
from dpjax.data.rlds import records, shards
from dpjax.data.rlds.examples import FLAGS
from dpjax.data.rlds.left_out import is_readable, report_left_out
from dpjax.data.rlds.writer import VERSION, DatasetInfo

# Keys that RLDS itself defines for a step; they are not observations.
OF_THE_STEP = (*FLAGS, "reward", "discount")
LISTED = 20  # faults that are logged; the others are counted
UNLIMITED = 2**62  # bytes, more than any machine has: all images stay in memory

log = logging.getLogger("dpjax")


def read(
    directory: str | Path,
    *,
    features: Mapping[str, str],
    split: str = "train",
    on_bad: str = "refuse",
    memory: int = UNLIMITED,
    folder: str | Path | None = None,
    on_skip: Callable[[int, str], None] | None = None,
) -> Episodes:
    """Reads an RLDS data set into columns {name: [N, ...]}: float32, images as `frames.Frames`.

    Args:
        directory: the data set, or one version of it.
        features: {column: path inside a step}, such as {"state": "observation/state"};
            "a/b+a/c" joins two vectors.
        on_bad: "refuse" raises at the first bad episode or lost shard, "skip" leaves them out.
        memory: limit for decoded images, in bytes. If they need more, they go to a file in
            `folder` (None: the system's temporary folder), which is read through a memory map.
        on_skip: called with the number and the problem of each skipped episode; None: log it.

    Raises:
        UserError: if the data set, a feature or (see on_bad) an episode cannot be read.
    """
    if on_bad not in ("refuse", "skip"):
        text = f"on_bad={on_bad!r} is unknown; choose one of refuse, skip."
        raise UserError(text, argument="on_bad")
    # Where the columns are in a record, and a store for each camera; they share the memory.
    info = _info(Path(directory))
    layout = _layout(info, features)
    cameras = [name for name, parts in layout.items() if columns_lib.is_camera(parts)]
    stores = {name: frames.Store(memory // len(cameras), folder) for name in cameras}
    # Good episodes are kept, bad ones raise an error or are skipped.
    good = []  # {column: [T, ...]} of each, without its images
    num_bad = 0
    faults = []  # those that on_skip is not told of
    try:
        for stored, columns, problems in _episodes(info, layout, split, skip=on_bad == "skip"):
            if problems:
                fault = stored.describe(problems[0])
                faults += _skip_or_refuse(stored, fault, on_bad, on_skip)
                num_bad += stored.count  # on_bad is "skip", otherwise an error was raised
                continue
            # Images are moved to the stores at once, so that their pixels are in memory once.
            for name, store in stores.items():
                store.append(columns.pop(name))
            good.append(columns)
    except records.LostShard as error:
        text = f"{error} Or leave its episodes out: on_bad=skip."
        raise UserError(text, argument="on_bad") from error
    # A data set of which few shards are there has thousands of faults.
    for fault in faults[:LISTED]:
        log.warning("skipped: %s", fault)
    # The caller may count skipped episodes with on_skip; otherwise they are summed up here.
    if num_bad and on_skip is None:
        total = num_bad + len(good)
        more = f" ({len(faults) - LISTED} more faults)" if len(faults) > LISTED else ""
        log.warning("%s: skipped %d bad of %d episodes%s", info.data_dir, num_bad, total, more)
    if not good:
        raise UserError(f"{info.data_dir}: expected at least 1 good episode, got 0.")
    # Numbers of all good episodes end to end, then one column of frames per camera.
    episodes = stack(good, str(info.data_dir))
    episodes.columns.update((name, store.frames()) for name, store in stores.items())
    return episodes


def _skip_or_refuse(
    stored: shards.Stored, fault: str, on_bad: str, on_skip: Callable[[int, str], None] | None
) -> list[str]:
    """Raises a UserError or calls on_skip, as `read` is told; returns the faults to be logged."""
    if on_bad == "refuse":
        text = f"{fault} Mend it, or leave such episodes out: on_bad=skip."
        raise UserError(text, argument="on_bad")
    # A fault behind the last episode of a shard is of no episode that a caller could count.
    if on_skip is None or not stored.count:
        return [fault]
    for number in range(stored.number, stored.number + stored.count):
        on_skip(number, fault)
    return []


def stream(
    directory: str | Path, *, features: Mapping[str, str], split: str = "train"
) -> Iterator[dict[str, np.ndarray]]:
    """Yields episodes {column: [T, ...]} one by one, images as uint8.

    Raises a UserError at the first bad episode.
    """
    info = _info(Path(directory))
    layout = _layout(info, features)
    # One record is in memory at a time.
    for stored, columns, problems in _episodes(info, layout, split):
        for problem in problems:  # the first one is enough
            raise UserError(stored.describe(problem))
        yield columns


class Feature(NamedTuple):
    """A tensor or image in each step of a data set.

    readable: whether `read` can read it as a column.
    """

    shape: tuple[int | None, ...]  # None: an axis of any length
    dtype: np.dtype
    readable: bool = True


def describe(directory: str | Path) -> dict[str, Feature]:
    """{path inside a step: Feature} of all tensors and images of an RLDS data set."""
    tfds = extras.require("tensorflow_datasets", extra="data")
    readable = {*usable(directory), *OF_THE_STEP}  # flags and rewards are numbers too
    return {
        path: Feature(tuple(leaf.shape), np.dtype(leaf.np_dtype), path in readable)
        for path, leaf in columns_lib.steps(_info(Path(directory))).items()
        if isinstance(leaf, (tfds.features.Tensor, tfds.features.Image))
    }


def metadata(directory: str | Path) -> dict[str, Any]:
    """The content of the data set's metadata.json, such as "fps"; {} if there is no such file."""
    file = Path(_info(Path(directory)).data_dir) / "metadata.json"
    # tfds writes this file only if the data set has metadata.
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise UserError(f"{file}: can't be read ({error}). Copy it again.") from error


def usable(directory: str | Path) -> dict[str, tuple[int, ...] | None]:
    """{path inside a step: shape of one step} of every feature that is a column by itself.

    The shape is None for images of any size. Flags, reward and discount are left out, and so is
    depth: matrices of more than 1000 numbers.
    """
    info = _info(Path(directory))
    leaves = columns_lib.steps(info)
    shapes = {}
    for path in leaves:
        if path in OF_THE_STEP or not is_readable(info, path, leaves):  # text, for example
            continue
        parts = columns_lib.column(info, path, leaves)
        if not columns_lib.is_large_matrix(parts):
            shapes[path] = columns_lib.shape(parts)
    return shapes


def _episodes(
    info: DatasetInfo, layout: Mapping[str, columns_lib.Parts], split: str, *, skip: bool = False
) -> Iterator[tuple[shards.Stored, dict[str, np.ndarray], list[str]]]:
    """Yields (where it is stored, columns, problems) of each episode, valid without problems.

    skip: shards that are lost are problems of their episodes; otherwise they raise a UserError.
    """
    # The declared shapes; images may have none.
    shapes = {name: columns_lib.shape(parts) for name, parts in layout.items()}
    shapes = {name: shape for name, shape in shapes.items() if shape is not None}
    for stored in shards.read_split(info, split, skip=skip):
        if stored.record is None:
            yield stored, {}, [stored.lost]
            continue
        columns, problems = columns_lib.parse(stored.record, layout)
        # Where the data set declares no image size, the first episode sets it.
        shapes = {name: column.shape[1:] for name, column in columns.items()} | shapes
        # A record that cannot be parsed has no columns to check.
        yield stored, columns, problems or checks.check_episode(columns, shapes)


def _info(directory: Path) -> DatasetInfo:
    """The tfds description of the data set in `directory`, or in its newest version directory."""
    tfds = extras.require("tensorflow_datasets", extra="data")
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory; expected an RLDS data set.")
    # `directory` is the version directory itself, or contains version directories.
    path = directory
    if not (path / "dataset_info.json").is_file():
        versions = [
            entry
            for entry in directory.iterdir()
            if re.fullmatch(r"\d+\.\d+\.\d+", entry.name)
            and (entry / "dataset_info.json").is_file()
        ]
        # Neither a data set nor a folder of versions.
        if not versions:
            raise UserError(
                f"{directory}: not an RLDS data set: expected dataset_info.json in it "
                f"or in a version directory such as {VERSION}."
            )
        # Compared as numbers: version 10.0.0 is newer than 9.0.0.
        path = max(versions, key=lambda entry: [int(n) for n in entry.name.split(".")])
    try:
        return tfds.builder_from_directory(str(path)).info
    except Exception as error:  # tfds raises whatever its JSON and proto readers raise
        raise UserError(
            f"{path}: dataset_info.json or features.json can't be read "
            f"({type(error).__name__}: {str(error)[:160]})."
        ) from error


def _layout(info: DatasetInfo, features: Mapping[str, str]) -> dict[str, columns_lib.Parts]:
    """Where a record has each column; a UserError if one is missing or cannot be read."""
    leaves = columns_lib.steps(info)
    layout = {name: columns_lib.column(info, path, leaves) for name, path in features.items()}
    # Log casts, which may lose digits of float64.
    for name, path in features.items():
        dtypes = {np.dtype(leaves[part].np_dtype) for part in path.split("+")}
        for dtype in dtypes - {np.dtype(np.float32)}:  # "a+b" may mix types
            if not columns_lib.is_camera(layout[name]):
                log.warning("%s: %s is %s: cast to float32", info.data_dir, path, dtype)
    # A forgotten observation shows up here.
    used = {part for path in features.values() for part in path.split("+")}
    report_left_out(info, used | set(FLAGS))
    return layout
