"""Episodes to an RLDS data set (tensorflow_datasets, without TensorFlow).

One record per episode in ArrayRecord files: `steps`, a sequence of {observation, action, is_first,
is_last, is_terminal}, and `episode_metadata`. Every tfds reads it.
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

# tfds.core.DatasetInfo: tensorflow_datasets, an extra, is imported where it is used.
DatasetInfo = Any

VERSION = "1.0.0"
# About 20 MB per shard of numbers: few files, and none too large to copy.
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
    """Writes episodes {key: [T, ...]} as they come to out_dir/1.0.0.

    Everything is written beside out_dir and renamed at the end, so that a set whose writing was
    interrupted cannot be taken for a complete one.

    Args:
        out_dir: must not exist.
        episodes: numbers are float32 (float64 is cast); images are uint8 [T, H, W, 3] and are
            stored as PNGs.
        name: of the data set, lower case with underscores.
        observations: the keys that go under steps/observation; the others go under steps.
        metadata: one dict of scalars per episode. An item is read after its episode, so this may
            be a list that the generator of the episodes appends to.

    Returns:
        The version directory.

    Raises:
        UserError: if out_dir exists, without episodes, or if one is bad.
    """
    out_dir = Path(out_dir)
    if out_dir.exists():
        raise UserError(f"{out_dir} exists already. Remove it or write to another directory.")
    # The number of the process keeps two writers apart.
    unfinished = out_dir.with_name(f"{out_dir.name}.incomplete.{os.getpid()}")
    path = unfinished / VERSION
    path.mkdir(parents=True)
    try:
        examples = _examples(episodes, observations, metadata, str(out_dir))
        _write(path, name, description, examples)
        # tfds writes the description at the end, if anything was written.
        if not (path / "dataset_info.json").is_file():
            raise UserError(f"{out_dir}: expected at least 1 episode to write, got 0.")
        unfinished.rename(out_dir)
    except BaseException:  # Ctrl-C too: no unfinished folder stays behind
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return out_dir / VERSION


def _write(path: Path, name: str, description: str, examples: Iterable[Mapping]) -> None:
    """Writes examples with tfds's own writer, made once the first one shows the features."""
    writer = None
    # A generator: episodes are written while the source still makes the next ones.
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
        file_format="array_record",
    )
    writer.initialize_splits(["train"])
    return writer


def describe(
    path: Path, name: str, description: str, example: Mapping, metadata: Mapping | None = None
) -> DatasetInfo:
    """The description of a data set whose features are those of `example`.

    metadata: {name: scalar} of the whole set, for its metadata.json.
    """
    tfds = extras.require("tensorflow_datasets", extra="data")
    # tfds wants a builder; this stands for one.
    identity = tfds.core.dataset_info.DatasetIdentity(
        name=name,
        version=tfds.core.Version(VERSION),
        data_dir=str(path),
        module_name=__name__,
    )
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
    """A function example -> bytes of its proto, the same in every process."""
    # Deterministic: a map of a proto has no order, and equal episodes must give equal bytes.
    tfds = extras.require("tensorflow_datasets", extra="data")
    encoder = tfds.core.example_serializer.ExampleSerializer(info.features.get_serialized_info())

    def serialize(example: Mapping) -> bytes:
        proto = encoder.get_tf_example(info.features.encode_example(example))
        return proto.SerializeToString(deterministic=True)

    return serialize


def write_shard(path: Path, name: str, number: int, records: Iterable[bytes]) -> None:
    """Writes one ArrayRecord file of the split "train"; it is on disk when this returns."""
    module = extras.require("array_record.python.array_record_module", extra="data")
    file = path / f"{name}-train.array_record-{number:05d}"
    # Groups of one record: any episode can be read without its neighbours.
    writer = module.ArrayRecordWriter(str(file), "group_size:1")
    try:
        for record in records:
            writer.write(record)
        writer.close()
    except RuntimeError as error:  # this is how it reports a full disk
        raise OSError(" ".join(str(error).split())[:160]) from error
    # The library closes files without flushing them to the disk.
    with open(file, "rb") as written:
        os.fsync(written.fileno())


def save_info(info: DatasetInfo, path: Path, lengths: list[int], size: int) -> None:
    """Writes the description of shards.

    lengths: episodes per shard. size: bytes of all records.
    """
    tfds = extras.require("tensorflow_datasets", extra="data")
    # How files are named, so that readers find them.
    template = tfds.core.ShardedFileTemplate(
        dataset_name=info.name,
        data_dir=path,
        split="train",
        filetype_suffix="array_record",
        template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}",
    )
    # How many episodes each file must have; `records.read_shards` compares.
    split = tfds.core.SplitInfo(
        name="train", shard_lengths=lengths, num_bytes=size, filename_template=template
    )
    info.set_file_format("array_record")
    info.set_splits(tfds.core.splits.SplitDict([split]))
    info.write_to_directory(path)


def _examples(
    episodes: Iterable[Mapping[str, np.ndarray]],
    observations: Sequence[str],
    metadata: Iterable[Mapping[str, Any]] | None,
    source: str,
) -> Iterator[dict[str, Any]]:
    """Yields each episode as RLDS nests it, once it was checked against the first one."""
    shapes: dict[str, tuple[int, ...]] = {}
    # An iterator over the same list that the episodes' generator may append to.
    items = None if metadata is None else iter(metadata)
    for number, episode in enumerate(episodes):
        where = f"{source}: episode {number}"
        # float64 becomes float32; one warning is enough for all episodes.
        columns = {
            key: _float32(np.asarray(x), f"{where}: {key}", warn=number == 0)
            for key, x in episode.items()
        }
        # The first episode sets keys and shapes for all.
        shapes = shapes or {key: x.shape[1:] for key, x in columns.items()}
        if columns.keys() != shapes.keys() or not set(observations) <= shapes.keys():
            want = ", ".join(sorted({*shapes, *observations}))
            raise UserError(f"{where}: expected the keys {want}, got {', '.join(sorted(columns))}.")
        for problem in checks.check_episode(columns, shapes):
            raise UserError(f"{where}, {problem}.")
        # Read after the episode, whose generator may have just appended it.
        item = None
        if items is not None:
            item = next(items, None)
            if not item:
                raise UserError(f"{where}: expected a dict of metadata for it, got {item}.")
        yield examples_lib.example(columns, observations, item, where)


def _float32(x: np.ndarray, where: str, warn: bool) -> np.ndarray:
    """float64 as float32; other types as they are."""
    if x.dtype != np.float64:
        return x
    if warn:
        log.warning("%s: float64 is cast to float32, here and in all episodes", where)
    return x.astype(np.float32)
