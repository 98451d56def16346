"""The episodes of a data set's shards, in order, and what is to be done about lost shards.

dataset_info.json lists the shards and how many episodes each of them holds. So it is known which
episodes are lost with a shard that is missing or cut, and all others keep their numbers.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dpjax.core.errors import UserError, choices
from dpjax.core.files import refuse_pointer
from dpjax.data.rlds.records import READERS, LostShard
from dpjax.data.rlds.writer import DatasetInfo


class Stored(NamedTuple):
    """A stored episode, or the episodes of a shard that cannot be read.

    path: the shard.
    number: the number of the episode in the data set, or that of the first lost one.
    record: the episode, serialized; None if it is lost.
    lost: why it cannot be read; "" for an episode.
    count: 1, or the number of lost episodes; 0 if what is broken comes after the last episode.
    """

    path: Path
    number: int
    record: bytes | None
    lost: str = ""
    count: int = 1

    def describe(self, problem: str) -> str:
        """A sentence that names the file, the episodes and their problem."""
        which = f"episode {self.number}"
        if self.count > 1:
            which = f"episodes {self.number} to {self.number + self.count - 1}"
        elif not self.count:
            which = "after the last episode"
        return f"{self.path}: {which}, {problem}."


def read_split(info: DatasetInfo, split: str, *, skip: bool = False) -> Iterator[Stored]:
    """Yields the episodes of a split.

    Args:
        skip: yield what is lost too, and go on. Otherwise it raises an error.

    Raises:
        UserError: if the split is unknown, its shards are too many or of a format that can't be
            read. A LostShard (see skip) if a shard is missing, cut or corrupt.
    """
    if split not in info.splits:
        text = f"{info.data_dir}: no split {split!r}; {choices(split, info.splits)}."
        raise UserError(text, argument="split")
    # The shards that dataset_info.json lists must be the only ones in the folder.
    shards = info.splits[split]
    paths = [Path(path) for path in shards.filepaths]  # whether or not they exist
    stem = f"{info.name}-{split}.{info.file_format.file_suffix}"
    present = {path.name for path in Path(info.data_dir).glob(f"{stem}*")}
    if extra := sorted(present - {path.name for path in paths}):
        raise UserError(
            f"{info.data_dir}: expected {len(paths)} shards by dataset_info.json, got "
            f"{extra[0]} too. Two sets are mixed, or a shard was renamed: copy it again."
        )
    if info.file_format.value not in READERS:
        raise UserError(
            f"{info.data_dir}: file format {info.file_format.value!r} can't be read; "
            f"expected one of {', '.join(READERS)}."
        )
    return _read_shards(paths, shards.shard_lengths, info.file_format.value, skip)


def _read_shards(
    paths: Sequence[Path], lengths: Sequence[int], file_format: str, skip: bool
) -> Iterator[Stored]:
    """Yields the episodes of all shards; see `read_split`."""
    # Check all files before the first is read, to fail early.
    if not skip:
        for path in paths:
            _check_file(path)
    first = 0
    for path, length in zip(paths, lengths):
        count = 0
        try:
            _check_file(path)
            # An episode is yielded as soon as it is read; their number is checked after the last.
            for record in READERS[file_format](path):
                yield Stored(path, first + count, record)
                count += 1
            _check_count(path, length, count)
        except LostShard as error:
            if not skip or count > length:
                raise
            reason = str(error).removeprefix(f"{path}: ").rstrip(".")
            yield Stored(path, first + count, None, reason, length - count)
        first += length


def _check_count(path: Path, expected: int, count: int) -> None:
    """Raises a LostShard if a shard has too few episodes, a UserError if it has too many."""
    if count != expected:
        # With more episodes than are listed, the file belongs to another data set.
        error = LostShard if count < expected else UserError
        raise error(
            f"{path}: expected {expected} episodes by dataset_info.json, got {count}. "
            "The file is cut or of another version: copy it again."
        )


def _check_file(path: Path) -> None:
    """Raises a LostShard if the shard is missing or a Git LFS pointer."""
    if not path.is_file():
        raise LostShard(f"{path}: missing shard. Copy it again, beside its dataset_info.json.")
    # Without `git lfs pull` a file is a short text that points to its content.
    try:
        refuse_pointer(path)
    except UserError as error:
        raise LostShard(str(error)) from error
