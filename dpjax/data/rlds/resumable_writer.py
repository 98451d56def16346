"""Writes an RLDS data set that takes hours: killed and started again, it goes on.

    OUT.incomplete/
        progress.json     what is asked for, the finished shards, a digest an episode
        journal-<shard>   the episodes of the shard that is not finished, framed as TFRecords
        data/1.0.0/       the finished shards

An episode is safe once it is in the journal: a tail that was cut fails its CRC and is
written again. Shards end at fixed numbers of episodes or bytes and records are serialized
in one order, so that the result has the same bytes however often it was interrupted. It is
read back before `data` is renamed to OUT. What is wrong with the source removes
everything; a kill, Ctrl-C or a full disk removes nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import fcntl
import json
import os
from pathlib import Path
import shutil
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from dpjax.core.errors import UserError
from dpjax.data import checks
from dpjax.data.episodes import digest
from dpjax.data.rlds import records, writer

SHARD_EPISODES = 1000
SHARD_BYTES = 2**28
DIGEST = 16  # bytes of an episode's digest before its record in the journal


class Conversion(NamedTuple):
    """What is to be written.

    asked: JSON that must be the same when it goes on: arguments, and the source's state.
    episodes: how many.
    read: e -> {key: [T, ...]}, float32 or images.
    about: e -> {name: scalar}, metadata of the episode.
    observations: the keys that go under steps/observation.
    facts: {name: scalar} of the whole set, kept in its metadata.json.
    """

    asked: Mapping[str, Any]
    episodes: int
    read: Callable[[int], Mapping[str, np.ndarray]]
    about: Callable[[int], Mapping[str, Any]]
    observations: Sequence[str]
    description: str
    facts: Mapping[str, Any]


class Shard(NamedTuple):
    """A finished shard: its episodes, their bytes, and their digests in hex."""

    episodes: int
    bytes: int
    digests: list[str]


def write(out: Path, conversion: Conversion, verify: Callable[[Path, list[str]], None]) -> Path:
    """Writes the data set to `out`, which must not exist; returns its version directory.

    verify: is given the directory before it gets its name, and the digests of what was
    given to the writer; raises UserError where it reads back different.
    """
    if out.exists():
        raise UserError(f"{out} exists already. Remove it or write to another directory.")
    folder = out.with_name(f"{out.name}.incomplete")
    with _locked(folder):
        shards = _resume(folder, conversion.asked)
        try:
            shards = _write(folder, conversion, shards)
            digests = [text for shard in shards for text in shard.digests]
            verify(folder / "data" / writer.VERSION, digests)
        except UserError:  # the source is to be mended: nothing of it stays behind
            shutil.rmtree(folder)
            raise
        except OSError as error:  # no space left, most likely
            raise UserError(
                f"{folder}: {error.strerror or error}. What is done is kept there: mend it and "
                "start the same command again, or remove it."
            ) from error
        (folder / "data").rename(out)
        shutil.rmtree(folder)
    return out / writer.VERSION


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Makes the folder and holds it against a second process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / "lock", "a", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}.") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder}: another process writes there: wait for it.") from None
        yield


def _resume(folder: Path, asked: Mapping[str, Any]) -> list[Shard]:
    """The finished shards; refuses a folder that was begun for something else."""
    file, now = folder / "progress.json", json.loads(json.dumps(asked))
    if not file.exists():
        _save(folder, now, [])
        return []
    try:
        found = json.loads(file.read_text())
        before, shards = found["asked"], [Shard(*shard) for shard in found["shards"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: can't be read ({error}). Remove {folder}.") from error
    for key in sorted({*before, *now}):
        if before.get(key) != now.get(key):
            raise UserError(
                f"{folder} was begun with {key}={before.get(key)}, now it is {now.get(key)}: "
                "give the same arguments to go on, or remove it to begin anew."
            )
    return shards


def _save(folder: Path, asked: Mapping[str, Any], shards: list[Shard]) -> None:
    new = folder / "progress.json.new"
    with open(new, "w", encoding="utf-8") as file:
        json.dump({"asked": asked, "shards": shards}, file)
        file.flush()
        os.fsync(file.fileno())
    new.replace(folder / "progress.json")


def _write(folder: Path, conversion: Conversion, shards: list[Shard]) -> list[Shard]:
    path = folder / "data" / writer.VERSION
    path.mkdir(parents=True, exist_ok=True)
    info, shapes = _describe(path, conversion)
    serializer = writer.serializer(info)
    shards = list(shards)
    with _Journal(folder, len(shards)) as journal:
        first = sum(shard.episodes for shard in shards) + len(journal.digests)
        numbers = tqdm(range(first, conversion.episodes), initial=first, total=conversion.episodes,
                       desc="converting", unit=" episodes")  # fmt: skip
        for e in numbers:
            if journal.full():
                shards = _close(folder, path, conversion.asked, shards, journal)
            columns = _checked(conversion, e, shapes)
            record = serializer(writer.example(columns, conversion.observations, conversion.about(e)))
            journal.append(digest(columns), record)
        shards = _close(folder, path, conversion.asked, shards, journal)
    lengths, size = [s.episodes for s in shards], sum(s.bytes for s in shards)
    writer.save_info(info, path, lengths, size)
    return shards


def _describe(path: Path, conversion: Conversion) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """The data set's description and the shapes of a step, from its first episode."""
    if not conversion.episodes:
        raise UserError(f"{conversion.description}: expected at least 1 episode, got 0.")
    columns = _checked(conversion, 0, None)
    example = writer.example(columns, conversion.observations, conversion.about(0))
    info = writer.describe(path, "demos", conversion.description, example, conversion.facts)
    return info, {key: x.shape[1:] for key, x in columns.items()}


def _checked(conversion: Conversion, e: int, shapes: Mapping | None) -> Mapping[str, np.ndarray]:
    columns = conversion.read(e)
    shapes = shapes or {key: x.shape[1:] for key, x in columns.items()}
    for problem in checks.check_episode(columns, shapes):
        raise UserError(f"{conversion.asked['source']}: episode {e}, {problem}.")
    return columns


def _close(folder, path, asked, shards, journal) -> list[Shard]:
    """Turns the journal into a shard and begins the next one."""
    if not journal.digests:
        return shards
    shard = Shard(len(journal.digests), journal.size, journal.digests)
    writer.write_shard(path, "demos", len(shards), journal.records())
    shards = [*shards, shard]
    _save(folder, asked, shards)  # from here on the journal is not read again
    journal.next()
    return shards


class _Journal:
    """The episodes of the shard that is being written, as far as they are whole.

    digests: of its episodes, in hex. size: bytes of their records.
    """

    def __init__(self, folder: Path, shard: int):
        self._folder, self._shard = folder, shard
        self._open()

    def __enter__(self) -> "_Journal":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def _open(self) -> None:
        self._path = self._folder / f"journal-{self._shard:05d}"
        for old in set(self._folder.glob("journal-*")) - {self._path}:
            old.unlink()  # of a shard that is finished
        self._path.touch()
        self.digests, self.size, end = [], 0, 0
        for record in records.whole(self._path):
            self.digests.append(record[:DIGEST].hex())
            self.size += len(record) - DIGEST
            end += records.framed_size(record)
        self._file = open(self._path, "r+b")
        self._file.truncate(end)
        self._file.seek(end)

    def append(self, digest: str, record: bytes) -> None:
        self._file.write(records.frame(bytes.fromhex(digest) + record))
        self._file.flush()  # the kernel has it: a kill of this process loses nothing
        self.digests.append(digest)
        self.size += len(record)

    def full(self) -> bool:
        return len(self.digests) >= SHARD_EPISODES or self.size >= SHARD_BYTES

    def records(self) -> Iterator[bytes]:
        return (record[DIGEST:] for record in records.whole(self._path))

    def next(self) -> None:
        self._file.close()
        self._shard += 1
        self._open()
