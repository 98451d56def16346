"""Episodes to an RLDS data set (tensorflow_datasets, without TensorFlow).

One record an episode in ArrayRecord files: `steps`, a sequence of {observation, action,
is_first, is_last, is_terminal}, and `episode_metadata`. Any tfds reads it.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import logging
import os
from pathlib import Path
import shutil
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from dpjax.core.errors import UserError
from dpjax.data import checks, images

VERSION = "1.0.0"
FLAGS = ("is_first", "is_last", "is_terminal")
EPISODES_PER_SHARD = 5000  # low-dim: about 20 MB a shard
_log = logging.getLogger("dpjax")


def write(
    out_dir: str | Path,
    episodes: Iterable[Mapping[str, np.ndarray]],
    *,
    name: str = "demos",
    observations: Sequence[str],
    metadata: Iterable[Mapping[str, Any]] | None = None,
    description: str,
) -> Path:
    """Writes {key: [T, ...]} episodes as they come, to out_dir/1.0.0, and returns that.

    Numbers are float32; images are uint8 [T, H, W, 3], and become PNGs.

    name: of the data set, lower case with underscores.
    observations: the keys that go under steps/observation; the others go under steps.
    metadata: one dict of scalars an episode. An item is read after its episode, so it
        may be a list that the generator of the episodes appends to.
    All is written beside out_dir and renamed at the end: what is killed looks unfinished.
    """
    out_dir = Path(out_dir)
    if out_dir.exists():
        raise UserError(f"{out_dir} exists already. Remove it or write to another directory.")
    unfinished = out_dir.with_name(f"{out_dir.name}.incomplete.{os.getpid()}")
    path = unfinished / VERSION
    path.mkdir(parents=True)
    try:
        examples = _examples(episodes, observations, metadata, str(out_dir))
        _write(path, name, description, examples)
        if not (path / "dataset_info.json").is_file():
            raise UserError(f"{out_dir}: expected at least 1 episode to write, got 0.")
        unfinished.rename(out_dir)
    except BaseException:  # Ctrl-C too: nothing half written stays behind
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return out_dir / VERSION


def _write(path: Path, name: str, description: str, examples: Iterable[Mapping]) -> None:
    writer = None
    for example in examples:
        writer = writer or _writer(path, name, description, example)
        writer.add_examples({"train": [example]})
    if writer:
        writer.close_all()


def _writer(path: Path, name: str, description: str, example: Mapping) -> Any:
    """A tfds writer whose features are those of the first episode."""
    writer = tfds.core.SequentialWriter(
        describe(path, name, description, example),
        max_examples_per_shard=EPISODES_PER_SHARD,
        file_format="array_record",
    )
    writer.initialize_splits(["train"])
    return writer


def describe(
    path: Path, name: str, description: str, example: Mapping, facts: Mapping | None = None
) -> tfds.core.DatasetInfo:
    """The description of a data set whose features are those of `example`.

    facts: {name: scalar} of the whole set, for its metadata.json.
    """
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=name,
        version=tfds.core.Version(VERSION),
        data_dir=str(path),
        module_name=__name__,
    )
    features = {"steps": tfds.features.Dataset(_features(example["steps"], of_step=True))}
    if "episode_metadata" in example:
        features["episode_metadata"] = _features(example["episode_metadata"], of_step=False)
    return tfds.core.DatasetInfo(
        builder=identity,
        features=tfds.features.FeaturesDict(features),
        description=description,
        disable_shuffling=True,  # episode i of the source is episode i of the set
        metadata=tfds.core.MetadataDict(facts) if facts else None,
    )


def serializer(info: tfds.core.DatasetInfo) -> Callable[[Mapping], bytes]:
    """example -> bytes of its proto, the same in every process."""
    known = tfds.core.example_serializer.ExampleSerializer(info.features.get_serialized_info())

    def serialize(example: Mapping) -> bytes:
        proto = known.get_tf_example(info.features.encode_example(example))
        return proto.SerializeToString(deterministic=True)

    return serialize


def write_shard(path: Path, name: str, number: int, records: Iterable[bytes]) -> None:
    """One ArrayRecord file of the split "train", on the disk when this returns."""
    from array_record.python.array_record_module import ArrayRecordWriter

    file = path / f"{name}-train.array_record-{number:05d}"
    writer = ArrayRecordWriter(str(file), "group_size:1")
    try:
        for record in records:
            writer.write(record)
        writer.close()
    except RuntimeError as error:  # its word for a full disk
        raise OSError(" ".join(str(error).split())[:160]) from error
    with open(file, "rb") as written:
        os.fsync(written.fileno())


def save_info(info: tfds.core.DatasetInfo, path: Path, lengths: list[int], size: int) -> None:
    """Writes the description of shards with so many episodes and so many bytes in all."""
    template = tfds.core.ShardedFileTemplate(
        dataset_name=info.name,
        data_dir=path,
        split="train",
        filetype_suffix="array_record",
        template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}",
    )
    split = tfds.core.SplitInfo(
        name="train", shard_lengths=lengths, num_bytes=size, filename_template=template
    )
    info.set_file_format("array_record")
    info.set_splits(tfds.core.splits.SplitDict([split]))
    info.write_to_directory(path)


def _features(tree: Mapping[str, Any], of_step: bool) -> dict[str, Any]:
    """The tfds features of {key: [T, ...]} (of_step) or of {key: scalar}, nested or not."""
    features = {}
    for key, x in tree.items():
        if isinstance(x, Mapping):
            features[key] = _features(x, of_step)
        elif isinstance(x, str):
            features[key] = tfds.features.Text()
        elif isinstance(x, list):  # of PNGs
            height, width = images.size(x[0])
            features[key] = tfds.features.Image(
                shape=(height, width, 3), dtype=np.uint8, encoding_format="png"
            )
        else:
            shape = x.shape[1:] if of_step else ()
            features[key] = tfds.features.Tensor(shape=shape, dtype=x.dtype)
    return features


def _examples(episodes, observations, metadata, source) -> Iterable[dict[str, Any]]:
    """One dict as RLDS nests it for each episode, checked against the first one."""
    shapes: dict[str, tuple[int, ...]] = {}
    later = None if metadata is None else iter(metadata)
    for number, episode in enumerate(episodes):
        where = f"{source}: episode {number}"
        columns = {
            key: _float32(np.asarray(x), f"{where}: {key}", say=number == 0)
            for key, x in episode.items()
        }
        shapes = shapes or {key: x.shape[1:] for key, x in columns.items()}
        if columns.keys() != shapes.keys() or not set(observations) <= shapes.keys():
            want = ", ".join(sorted({*shapes, *observations}))
            raise UserError(f"{where}: expected the keys {want}, got {', '.join(sorted(columns))}.")
        for problem in checks.check_episode(columns, shapes):
            raise UserError(f"{where}, {problem}.")
        if later is not None:
            item = next(later, None)
            if not item:
                raise UserError(f"{where}: expected a dict of metadata for it, got {item}.")
            yield example(columns, observations, item, where)
        else:
            yield example(columns, observations)


def example(
    columns: Mapping[str, np.ndarray],
    observations: Sequence[str],
    metadata: Mapping[str, Any] | None = None,
    where: str = "",
) -> dict[str, Any]:
    """One episode {key: [T, ...]} as RLDS nests it."""
    nested: dict[str, Any] = {"steps": _steps(columns, observations)}
    if metadata:
        nested["episode_metadata"] = _scalars(metadata, where)
    return nested


def _float32(x: np.ndarray, where: str, say: bool) -> np.ndarray:
    if x.dtype != np.float64:
        return x
    if say:
        _log.warning("%s: float64 is cast to float32, here and in all episodes", where)
    return x.astype(np.float32)


def _steps(columns: Mapping[str, np.ndarray], observations: Sequence[str]) -> dict[str, Any]:
    step = np.arange(len(next(iter(columns.values()))))
    others = {key: x for key, x in columns.items() if key not in observations}
    return {
        "observation": {key: _encoded(columns[key]) for key in observations},
        **{key: _encoded(x) for key, x in others.items()},
        "is_first": step == 0,
        "is_last": step == step[-1],
        # In RLDS the action of a terminal step means nothing; ours all do.
        "is_terminal": np.zeros(len(step), bool),
    }


def _encoded(x: np.ndarray) -> np.ndarray | list[bytes]:
    return images.encode_all(x) if checks.is_image(x.shape[1:], x.dtype) else x


def _scalars(item: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Metadata as int64, float32, bool or str."""
    dtypes = {bool: np.bool_, int: np.int64, float: np.float32}
    scalars = {}
    for key, x in item.items():
        x = x.item() if isinstance(x, (np.generic, np.ndarray)) else x
        if not isinstance(x, (str, *dtypes)):
            raise UserError(f"{where}: metadata {key}: expected a scalar, got {x!r}.")
        scalars[key] = x if isinstance(x, str) else np.asarray(x, dtypes[type(x)])
    return scalars
