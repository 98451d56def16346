"""RLDS data sets (tensorflow_datasets, without TensorFlow) to Episodes.

RLDS keeps one record an episode: `steps`, a sequence of {observation, action, is_first,
is_last, is_terminal}, and `episode_metadata`. It is read once, straight from the
protos, into flat columns: 200 episodes of 120 steps in 0.05 s, where walking the steps
takes 1.0 s.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
import json
import logging
from pathlib import Path
import re
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from dpjax.core.errors import UserError, choices
from dpjax.data import checks, frames
from dpjax.data.episodes import Episodes, stack
from dpjax.data.rlds import columns as columns_lib
from dpjax.data.rlds import records
from dpjax.data.rlds.writer import FLAGS, VERSION, write

__all__ = ["describe", "metadata", "read", "stream", "write"]
OF_THE_STEP = (*FLAGS, "reward", "discount")  # what RLDS says of the step itself
_log = logging.getLogger("dpjax")


def read(
    directory: str | Path,
    *,
    features: Mapping[str, str],
    split: str = "train",
    on_bad: str = "refuse",
    memory: int = 2**62,
    folder: str | Path | None = None,
    tell: Callable[[int, str], None] | None = None,
) -> Episodes:
    """The columns {name: [N, ...]} of an RLDS data set: float32, images `frames.Frames`.

    features: {column: path inside a step}, such as {"state": "observation/state"}; "a/b+a/c"
        joins two.
    on_bad: "refuse" raises at the first bad episode; "skip" leaves it out and says so.
    memory: bytes that decoded images may take before they go to a file in `folder`
        (default: the system's temporary one), which is read through a memory map.
    tell: is given number and fault of each episode that is left out; default: a warning.
    """
    if on_bad not in ("refuse", "skip"):
        raise UserError(f"data.on_bad={on_bad!r} is unknown; choose one of refuse, skip.")
    info = _info(Path(directory))
    layout = _layout(info, features)
    cameras = [name for name, parts in layout.items() if columns_lib.is_camera(parts)]
    stores = {name: frames.Store(memory // len(cameras), folder) for name in cameras}
    shapes = _shapes(layout)
    good, bad, episode = [], 0, -1
    for episode, (path, record) in enumerate(_records(info, split)):
        columns, problems = columns_lib.parse(record, layout)
        shapes = {name: column.shape[1:] for name, column in columns.items()} | shapes
        problems = problems or checks.check_episode(columns, shapes)
        if not problems:
            for name, store in stores.items():
                store.append(columns.pop(name))
            good.append(columns)
            continue
        line = f"{path}: episode {episode}, {problems[0]}."
        if on_bad == "refuse":
            raise UserError(f"{line} Mend it, or leave such episodes out: data.on_bad=skip.")
        tell(episode, line) if tell else _log.warning("skipped: %s", line)
        bad += 1
    if bad and not tell:
        _log.warning("%s: skipped %d bad of %d episodes", info.data_dir, bad, episode + 1)
    if not good:
        raise UserError(f"{info.data_dir}: expected at least 1 good episode, got 0.")
    episodes = stack(good, str(info.data_dir))
    episodes.columns.update((name, store.frames()) for name, store in stores.items())
    return episodes


class Feature(NamedTuple):
    """What a data set keeps of each step. readable: whether `read` can make a column of it."""

    shape: tuple[int | None, ...]
    dtype: np.dtype
    readable: bool = True


def describe(directory: str | Path) -> dict[str, Feature]:
    """{path inside a step: Feature} of all tensors and images of an RLDS data set."""
    known = {*usable(directory), *OF_THE_STEP}
    return {
        path: Feature(tuple(leaf.shape), np.dtype(leaf.np_dtype), path in known)
        for path, leaf in columns_lib.steps(_info(Path(directory))).items()
        if isinstance(leaf, (tfds.features.Tensor, tfds.features.Image))
    }


def stream(
    directory: str | Path, *, features: Mapping[str, str], split: str = "train"
) -> Iterator[dict[str, np.ndarray]]:
    """The episodes {column: [T, ...]} one by one, images as uint8; the first bad one raises."""
    info = _info(Path(directory))
    layout = _layout(info, features)
    shapes = _shapes(layout)
    for episode, (path, record) in enumerate(_records(info, split)):
        columns, problems = columns_lib.parse(record, layout)
        shapes = {name: column.shape[1:] for name, column in columns.items()} | shapes
        for problem in problems or checks.check_episode(columns, shapes):
            raise UserError(f"{path}: episode {episode}, {problem}.")
        yield columns


def metadata(directory: str | Path) -> dict[str, Any]:
    """What the data set says of itself in metadata.json, such as its "fps"; {} for nothing."""
    file = Path(_info(Path(directory)).data_dir) / "metadata.json"
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text()))
    except (ValueError, TypeError) as error:
        raise UserError(f"{file}: can't be read ({error}). Copy it again.") from error


def usable(directory: str | Path) -> dict[str, tuple[int, ...] | None]:
    """{path inside a step: shape of one} of all that `read` can read; None: of any size.

    Not what RLDS says of the step itself: flags, reward and discount.
    """
    info = _info(Path(directory))
    found = {}
    leaves = columns_lib.steps(info)
    for path in leaves:
        if path in OF_THE_STEP:
            continue
        try:
            found[path] = columns_lib.shape(columns_lib.column(info, path, leaves))
        except UserError:
            continue  # text and the like; `read` says which it does not use
    return found


def _info(directory: Path) -> tfds.core.DatasetInfo:
    """The description in `directory`, or in its newest version directory."""
    if not directory.is_dir():
        raise UserError(f"{directory}: no such directory; expected an RLDS data set.")
    path = directory
    if not (path / "dataset_info.json").is_file():
        versions = [
            entry
            for entry in directory.iterdir()
            if re.fullmatch(r"\d+\.\d+\.\d+", entry.name)
            and (entry / "dataset_info.json").is_file()
        ]
        if not versions:
            raise UserError(
                f"{directory}: no RLDS data set: expected dataset_info.json in it "
                f"or in a version directory such as {VERSION}."
            )
        path = max(versions, key=lambda entry: [int(n) for n in entry.name.split(".")])
    try:
        return tfds.builder_from_directory(str(path)).info
    except Exception as error:  # tfds raises whatever its JSON and proto readers raise
        raise UserError(
            f"{path}: dataset_info.json or features.json can't be read "
            f"({type(error).__name__}: {str(error)[:160]})."
        ) from error


def _layout(
    info: tfds.core.DatasetInfo, features: Mapping[str, str]
) -> dict[str, columns_lib.Parts]:
    """Where the wanted columns lie; refuses what isn't there or can't be read."""
    leaves = columns_lib.steps(info)
    layout = {name: columns_lib.column(info, path, leaves) for name, path in features.items()}
    for name, path in features.items():
        dtypes = {np.dtype(leaves[part].np_dtype) for part in path.split("+")}
        for dtype in dtypes - {np.dtype(np.float32)}:
            if not columns_lib.is_camera(layout[name]):
                _log.warning("%s: %s is %s: cast to float32", info.data_dir, path, dtype)
    used = {part for path in features.values() for part in path.split("+")}
    if ignored := sorted(set(leaves) - used - set(FLAGS)):
        _log.info("%s: not used: %s", info.data_dir, ", ".join(ignored))
    return layout


def _shapes(layout: Mapping[str, columns_lib.Parts]) -> dict[str, tuple[int, ...]]:
    """{column: shape of one step} of those of which the data set promises one."""
    shapes = {name: columns_lib.shape(parts) for name, parts in layout.items()}
    return {name: shape for name, shape in shapes.items() if shape is not None}


def _records(info: tfds.core.DatasetInfo, split: str) -> Iterable[tuple[Path, bytes]]:
    if split not in info.splits:
        raise UserError(f"{info.data_dir}: no split {split!r}; {choices(split, info.splits)}.")
    found = info.splits[split]
    paths = [Path(path) for path in found.filepaths]
    stem = f"{info.name}-{split}.{info.file_format.file_suffix}"
    extra = {path.name for path in Path(info.data_dir).glob(f"{stem}*")}
    if extra := sorted(extra - {path.name for path in paths}):
        raise UserError(
            f"{info.data_dir}: expected {len(paths)} shards by dataset_info.json, got "
            f"{extra[0]} too. Two sets are mixed, or a shard was renamed: copy it again."
        )
    return records.read_shards(paths, found.shard_lengths, info.file_format.value)
