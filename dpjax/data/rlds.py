"""RLDS data sets (tensorflow_datasets, without TensorFlow) to Episodes.

RLDS keeps one record an episode: `steps`, a sequence of {observation, action, is_first,
is_last, is_terminal}, and `episode_metadata`. It is read once, straight from the
protos, into flat columns: 200 episodes of 120 steps in 0.05 s, where walking the steps
takes 1.0 s.
"""

from collections.abc import Callable, Iterable, Mapping
import logging
import math
from pathlib import Path
import re
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from dpjax.data import check, frames, images, records
from dpjax.data.episodes import Episodes, stack
from dpjax.data.rlds_writer import FLAGS, VERSION, write
from dpjax.errors import UserError, choices

__all__ = ["describe", "read", "write"]
_log = logging.getLogger("dpjax")


class Column(NamedTuple):
    """Where a wanted column lies in a record: key of the proto, and shape of one step.

    shape: None for images of which the data set promises no size.
    kind: "numbers", "pixels" (uint8 as whole numbers) or "encoded" (PNG, JPEG).
    """

    key: str
    shape: tuple[int, ...] | None
    kind: str = "numbers"


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

    features: {column: path inside a step}, such as {"state": "observation/state"}.
    on_bad: "refuse" raises at the first bad episode; "skip" leaves it out and says so.
    memory: bytes that decoded images may take before they go to a file in `folder`
        (default: the system's temporary one), which is read through a memory map.
    tell: is given number and fault of each episode that is left out; default: a warning.
    """
    if on_bad not in ("refuse", "skip"):
        raise UserError(f"data.on_bad={on_bad!r} is unknown; choose one of refuse, skip.")
    info = _info(Path(directory))
    layout = _layout(info, features)
    cameras = [name for name, column in layout.items() if column.kind != "numbers"]
    stores = {name: frames.Store(memory // len(cameras), folder) for name in cameras}
    shapes = {name: column.shape for name, column in layout.items() if column.shape is not None}
    good, bad, episode = [], 0, -1
    for episode, (path, record) in enumerate(_records(info, split)):
        columns, problems = _parse(record, layout)
        shapes = {name: column.shape[1:] for name, column in columns.items()} | shapes
        problems = problems or check.check_episode(columns, shapes)
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


def describe(directory: str | Path) -> dict[str, tuple[tuple, np.dtype]]:
    """{path inside a step: (shape, dtype)} of all that an RLDS data set keeps."""
    return {
        path: (tuple(leaf.shape), np.dtype(leaf.np_dtype))
        for path, leaf in _steps(_info(Path(directory))).items()
        if isinstance(leaf, (tfds.features.Tensor, tfds.features.Image))
    }


def usable(directory: str | Path) -> dict[str, tuple[int, ...] | None]:
    """{path inside a step: shape of one} of all that `read` can read; None: of any size."""
    info = _info(Path(directory))
    found = {}
    for path, leaf in _steps(info).items():
        try:
            found[path] = _column(info, path, leaf).shape
        except UserError:
            continue  # text, flags and the like; `read` says which it does not use
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


def _layout(info: tfds.core.DatasetInfo, features: Mapping[str, str]) -> dict[str, Column]:
    """Where the wanted columns lie; refuses what isn't there or isn't a float tensor."""
    leaves = _steps(info)
    layout = {}
    for name, path in features.items():
        if path not in leaves:
            raise UserError(f"{info.data_dir}: no key {path!r}; {choices(path, leaves)}.")
        layout[name] = _column(info, path, leaves[path])
        dtype = np.dtype(leaves[path].np_dtype)
        if layout[name].kind == "numbers" and dtype != np.float32:
            _log.warning("%s: %s is %s: cast to float32", info.data_dir, path, dtype)
    if ignored := sorted(set(leaves) - set(features.values()) - set(FLAGS)):
        _log.info("%s: not used: %s", info.data_dir, ", ".join(ignored))
    return layout


def _steps(info: tfds.core.DatasetInfo) -> dict[str, Any]:
    """{path inside a step: feature}."""
    steps = dict(_leaves(info.features)).get("steps")
    if not isinstance(steps, tfds.features.Dataset):
        raise UserError(f"{info.data_dir}: no RLDS data set: expected a feature 'steps'.")
    return dict(_leaves(steps.feature))


def _column(info: tfds.core.DatasetInfo, path: str, leaf: Any) -> Column:
    """How one wanted feature is stored; refuses what is neither numbers nor images."""
    key = f"steps/{path}"
    if isinstance(leaf, tfds.features.Image):
        return Column(key, None if None in leaf.shape else tuple(leaf.shape), "encoded")
    known = isinstance(leaf, tfds.features.Tensor) and None not in leaf.shape
    if known and check.is_image(leaf.shape, leaf.np_dtype):
        return Column(key, tuple(leaf.shape), "pixels")
    if not known or not np.issubdtype(leaf.np_dtype, np.floating):
        raise UserError(
            f"{info.data_dir}: {path}: expected a float32 tensor of fixed shape or uint8 images "
            f"[H, W, 3], got {type(leaf).__name__} of {np.dtype(leaf.np_dtype)} {leaf.shape}."
        )
    return Column(key, tuple(leaf.shape))


def _leaves(feature: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    """(path inside a step, feature) of all the leaves."""
    if not isinstance(feature, tfds.features.FeaturesDict):
        return [(prefix.rstrip("/"), feature)]
    items = feature.items()
    return [leaf for key, child in items for leaf in _leaves(child, f"{prefix}{key}/")]


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


def _parse(
    record: bytes, layout: Mapping[str, Column]
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Columns {name: [T, ...]} of one record, or what is wrong with it."""
    try:
        fields = tf_example_pb2.Example.FromString(record).features.feature
    except Exception as error:  # protobuf's DecodeError differs between its backends
        return {}, [f"not a tf.Example ({error})"]
    # Every RLDS step has is_first: with it the number of steps is known apart from the shapes.
    steps = None
    if "steps/is_first" in fields:
        steps = len(fields["steps/is_first"].int64_list.value)
    columns = {}
    for name, column in layout.items():
        if column.key not in fields:
            return {}, [f"{column.key}: missing in this episode"]
        columns[name], problem = _values(fields[column.key], column, steps)
        if problem:
            return {}, [f"{column.key}: {problem}"]
    return columns, []


KINDS = {"numbers": "float_list", "pixels": "int64_list", "encoded": "bytes_list"}


def _values(field: Any, column: Column, steps: int | None) -> tuple[np.ndarray, str]:
    """One column [T, ...] of a record, or what is wrong with it."""
    nothing = np.zeros(0, np.float32)
    want = KINDS[column.kind]
    kind = field.WhichOneof("kind") or want  # no kind: no values
    if kind != want:
        return nothing, f"expected {want}, got {kind}"
    if column.kind == "encoded":
        return images.decode(field.bytes_list.value, column.shape and column.shape[:2])
    flat = np.array(getattr(field, want).value, np.float32)
    if column.kind == "pixels":
        pixels = images.as_pixels(flat)
        if pixels is None:
            return nothing, f"expected numbers from 0 to 255, got {flat.min()} to {flat.max()}"
        flat = pixels
    size = math.prod(column.shape)
    length = len(flat) // size if steps is None and size else steps or 0
    if len(flat) == length * size:
        return flat.reshape(length, *column.shape), ""
    if length and len(flat) % length == 0:  # a step of another shape: check names it
        return flat.reshape(length, -1), ""
    return nothing, f"expected {length} steps of {size} numbers, got {len(flat)} in all"
