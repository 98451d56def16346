"""Writes episodes as an RLDS data set (tensorflow_datasets, without TensorFlow).

ArrayRecord files hold one record per episode: `steps`, a sequence of {observation, action,
is_first, is_last, is_terminal}, and `episode_metadata`. tensorflow_datasets can read the result.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import logging
import os
from pathlib import Path
import shutil
from typing import Any

import numpy as np

from dpjax.core import extras
from dpjax.core.errors import UserError
from dpjax.data import checks
from dpjax.data.rlds import examples as examples_lib

# Stands for tfds.core.DatasetInfo: tensorflow_datasets is optional and imported where it is used.
DatasetInfo = Any

VERSION = "1.0.0"
# About 20 MB per shard without images: few files, and each is small enough to copy.
EPISODES_PER_SHARD = 5000

log = logging.getLogger("dpjax")


def write(
    out_dir: str | Path,
    episodes: Iterable[Mapping[str, np.ndarray]],
    *,
    name: str = "demos",
    observations: Sequence[str],
    metadata: Iterable[Mapping[str, Any]] | None = None,
    description: str,
) -> Path:
    """Writes episodes {key: [T, ...]} to out_dir/1.0.0, one at a time.

    The data set is written to a folder beside out_dir and renamed at the end, so that an incomplete
    one cannot be mistaken for a complete one.

    Args:
        out_dir: must not exist.
        episodes: numbers are float32 (float64 is cast); images are uint8 [T, H, W, 3] and are
            stored as PNGs.
        name: the name of the data set, lower case with underscores.
        observations: the keys that go under steps/observation; the others go under steps.
        metadata: one dict of scalars per episode. It is read after the episode, so this may be a
            list to which the generator of the episodes appends.

    Returns:
        The version directory.

    Raises:
        UserError: if out_dir exists, if there are no episodes, or if one is bad.
    """
    out_dir = Path(out_dir)
    if out_dir.exists():
        raise UserError(f"{out_dir} exists already. Remove it or write to another directory.")
    # The process id in the name keeps two processes from writing to the same folder.
    unfinished = out_dir.with_name(f"{out_dir.name}.incomplete.{os.getpid()}")
    path = unfinished / VERSION
    path.mkdir(parents=True)
    try:
        # Nothing is read yet: `_examples` is a generator.
        examples = _examples(episodes, observations, metadata, str(out_dir))
        _write(path, name, description, examples)
        # tfds writes dataset_info.json at the end, and only if there was an episode.
        if not (path / "dataset_info.json").is_file():
            raise UserError(f"{out_dir}: expected at least 1 episode to write, got 0.")
        unfinished.rename(out_dir)
    except BaseException:
        # BaseException includes Ctrl-C: the unfinished folder is deleted in every case.
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return out_dir / VERSION


def _write(path: Path, name: str, description: str, examples: Iterable[Mapping]) -> None:
    """Writes examples with tfds's own writer."""
    # The writer needs the features, which are known once the first example is there.
    writer = None
    # `examples` is a generator: only one episode is in memory at a time.
    for example in examples:
        writer = writer or _writer(path, name, description, example)
        writer.add_examples({"train": [example]})
    if writer:
        writer.close_all()


def _writer(path: Path, name: str, description: str, example: Mapping) -> Any:
    """A tfds writer whose features are those of the first episode."""
    tfds = extras.require("tensorflow_datasets", extra="data")
    writer = tfds.core.SequentialWriter(
        describe(path, name, description, example),
        max_examples_per_shard=EPISODES_PER_SHARD,
        # Unlike TFRecord, it gives access to single episodes.
        file_format="array_record",
    )
    # The data set has one split.
    writer.initialize_splits(["train"])
    return writer


def describe(
    path: Path, name: str, description: str, example: Mapping, metadata: Mapping | None = None
) -> DatasetInfo:
    """The description of a data set whose features are those of `example`.

    metadata: {name: scalar} of the data set as a whole, for its metadata.json.
    """
    tfds = extras.require("tensorflow_datasets", extra="data")
    # DatasetInfo takes a tfds builder or, as here, only the identity of a data set.
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=name,
        version=tfds.core.Version(VERSION),
        data_dir=str(path),
        module_name=__name__,
    )
    # The features of a step, and of the episode's metadata if there are any.
    features = {
        "steps": tfds.features.Dataset(examples_lib.features(example["steps"], of_step=True))
    }
    if "episode_metadata" in example:
        features["episode_metadata"] = examples_lib.features(
            example["episode_metadata"], of_step=False
        )
    return tfds.core.DatasetInfo(
        builder=identity,
        features=tfds.features.FeaturesDict(features),
        description=description,
        disable_shuffling=True,  # episode i of the source is episode i of the set
        metadata=tfds.core.MetadataDict(metadata) if metadata else None,
    )


def serializer(info: DatasetInfo) -> Callable[[Mapping], bytes]:
    """A function that serializes an example; equal examples give equal bytes in every process."""
    tfds = extras.require("tensorflow_datasets", extra="data")
    encoder = tfds.core.example_serializer.ExampleSerializer(info.features.get_serialized_info())

    def serialize(example: Mapping) -> bytes:
        proto = encoder.get_tf_example(info.features.encode_example(example))
        # The features are a map, whose order is only fixed if it is asked for.
        return proto.SerializeToString(deterministic=True)

    return serialize


def write_shard(path: Path, name: str, number: int, records: Iterable[bytes]) -> None:
    """Writes one ArrayRecord file of the split "train", and waits until it is on disk."""
    module = extras.require("array_record.python.array_record_module", extra="data")
    file = path / f"{name}-train.array_record-{number:05d}"
    # A group is compressed as one block. With one record per group, an episode can be read alone.
    writer = module.ArrayRecordWriter(str(file), "group_size:1")
    try:
        # `records` may read from the journal: only one record is in memory at a time.
        for record in records:
            writer.write(record)
        writer.close()
    except RuntimeError as error:
        # ArrayRecord reports a full disk as a RuntimeError with several lines.
        raise OSError(" ".join(str(error).split())[:160]) from error
    # `close` leaves the data in the system's cache; fsync writes it to disk.
    with open(file, "rb") as written:
        os.fsync(written.fileno())


def save_info(info: DatasetInfo, path: Path, lengths: list[int], size: int) -> None:
    """Writes dataset_info.json and features.json for finished shards.

    lengths: the number of episodes in each shard.
    size: the total size of all records, in bytes.
    """
    tfds = extras.require("tensorflow_datasets", extra="data")
    # The pattern of the files' names, by which readers find them (see `write_shard`).
    template = tfds.core.ShardedFileTemplate(
        dataset_name=info.name,
        data_dir=path,
        split="train",
        filetype_suffix="array_record",
        template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}",
    )
    # The number of episodes per file, which `shards.read_split` verifies.
    split = tfds.core.SplitInfo(
        name="train", shard_lengths=lengths, num_bytes=size, filename_template=template
    )
    # The JSON files are written from these attributes of `info`.
    info.set_file_format("array_record")
    info.set_splits(tfds.core.splits.SplitDict([split]))
    info.write_to_directory(path)


def _examples(
    episodes: Iterable[Mapping[str, np.ndarray]],
    observations: Sequence[str],
    metadata: Iterable[Mapping[str, Any]] | None,
    source: str,
) -> Iterator[dict[str, Any]]:
    """Yields each episode as the nested dict that RLDS stores, after checking it."""
    shapes: dict[str, tuple[int, ...]] = {}
    # An iterator over a list also sees items that are appended while it runs.
    items = None if metadata is None else iter(metadata)
    for number, episode in enumerate(episodes):
        where = f"{source}: episode {number}"
        # float64 becomes float32, with a warning for the first episode only.
        columns = {
            key: _float32(np.asarray(x), f"{where}: {key}", warn=number == 0)
            for key, x in episode.items()
        }
        # All episodes must have the keys and shapes of the first one, observations among them.
        shapes = shapes or {key: x.shape[1:] for key, x in columns.items()}
        if columns.keys() != shapes.keys() or not set(observations) <= shapes.keys():
            want = ", ".join(sorted({*shapes, *observations}))
            raise UserError(f"{where}: expected the keys {want}, got {', '.join(sorted(columns))}.")
        for problem in checks.check_episode(columns, shapes):
            raise UserError(f"{where}, {problem}.")
        # Its metadata, which the generator of the episodes may have appended just now.
        item = None
        if items is not None:
            item = next(items, None)
            if not item:
                raise UserError(f"{where}: expected a dict of metadata for it, got {item}.")
        yield examples_lib.example(columns, observations, item, where)


def _float32(x: np.ndarray, where: str, warn: bool) -> np.ndarray:
    """float64 as float32; other types as they are."""
    # Other wrong types are left for `check_episode` to report.
    if x.dtype != np.float64:
        return x
    if warn:
        log.warning("%s: float64 is cast to float32, here and in all episodes", where)
    return x.astype(np.float32)
