"""Writes an RLDS data set that takes hours: interrupted and started again, it goes on.

    OUT.incomplete/
        lock              held by the process that writes
        progress.json     the request, the finished shards, and a digest of each of their episodes
        journal-<shard>   the episodes of the unfinished shard, framed as TFRecords
        data/1.0.0/       the finished shards

An episode is safe once it is in the journal: if the journal's end was cut, that episode's CRC fails
and it is written again. Shards end at fixed numbers of episodes or bytes, and records are
serialized in one order, so the result has the same bytes however often it was interrupted. It is
read back before `data` is renamed to OUT. A fault of the source removes everything; a kill, Ctrl-C
or a full disk removes nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import json
from pathlib import Path
import shutil
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from dpjax.core import files
from dpjax.core.errors import UserError
from dpjax.data import checks
from dpjax.data.episodes import digest
from dpjax.data.rlds import examples, writer
from dpjax.data.rlds.journal import Journal

NAME = "demos"  # of the data set
# A shard ends at whichever comes first.
SHARD_EPISODES = 1000
SHARD_BYTES = 2**28


class Conversion(NamedTuple):
    """What is to be written.

    request: JSON that must be the same when an interrupted conversion goes on: the arguments, and
        the state of the source.
    num_episodes: how many there are.
    read: number of an episode -> {key: [T, ...]}, float32 or images.
    metadata: number of an episode -> {name: scalar}.
    observations: the keys that go under steps/observation.
    description: of the data set, for people.
    set_metadata: {name: scalar} of the whole set, for its metadata.json.
    """

    request: Mapping[str, Any]
    num_episodes: int
    read: Callable[[int], Mapping[str, np.ndarray]]
    metadata: Callable[[int], Mapping[str, Any]]
    observations: Sequence[str]
    description: str
    set_metadata: Mapping[str, Any]


class Shard(NamedTuple):
    """A finished shard: the number of its episodes, their bytes, and their digests in hex."""

    episodes: int
    bytes: int
    digests: list[str]


def write(out: Path, conversion: Conversion, verify: Callable[[Path, list[str]], None]) -> Path:
    """Writes a data set, or goes on writing it.

    Args:
        out: must not exist.
        verify: called with the version directory before it gets its name, and with the digests of
            the episodes that were written; raises a UserError if it reads back different.

    Returns:
        The version directory, out/1.0.0.

    Raises:
        UserError: if `out` exists, another process writes it, it was started with another request,
            an episode is bad, or the disk is full.
    """
    if out.exists():
        raise UserError(f"{out} exists already. Remove it or write to another directory.")
    folder = out.with_name(f"{out.name}.incomplete")
    # Everything happens under the lock, beside `out`, and `out` appears in one step at the end.
    with _locked(folder):
        shards = _resume(folder, conversion.request)
        try:
            shards = _write(folder, conversion, shards)
            digests = [text for shard in shards for text in shard.digests]
            verify(folder / "data" / writer.VERSION, digests)
        except UserError:  # the source must be mended, so none of this is of use
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
    """Makes the folder and locks it against a second process."""
    # The folder may be there from an interrupted conversion, with the lock of a process that is
    # gone: such a lock is free.
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / "lock", "a", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}.") from error
    with file:
        if not files.try_lock(file):
            raise UserError(f"{folder}: another process writes there: wait for it.")
        yield


def _resume(folder: Path, request: Mapping[str, Any]) -> list[Shard]:
    """The finished shards; a UserError if the folder was started with another request."""
    file = folder / "progress.json"
    request = json.loads(json.dumps(request))  # tuples as lists, to be compared with the file
    if not file.exists():
        _save(folder, request, [])
        return []
    # What the interrupted process was asked for, and what it finished.
    try:
        progress = json.loads(file.read_text())
        before = progress["asked"]
        shards = [Shard(*shard) for shard in progress["shards"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: can't be read ({error}). Remove {folder}.") from error
    # Other arguments or another state of the source would mix two data sets.
    for key in sorted({*before, *request}):
        if before.get(key) != request.get(key):
            raise UserError(
                f"{folder} was started with {key}={before.get(key)}, now it is "
                f"{request.get(key)}: give the same arguments to go on, or remove it to start "
                "anew."
            )
    return shards


def _save(folder: Path, request: Mapping[str, Any], shards: list[Shard]) -> None:
    """Writes progress.json."""
    content = json.dumps({"asked": request, "shards": shards})
    files.write_atomically(folder / "progress.json", content)


def _write(folder: Path, conversion: Conversion, shards: list[Shard]) -> list[Shard]:
    """Writes all episodes that are in neither the shards nor the journal; returns all shards."""
    path = folder / "data" / writer.VERSION
    path.mkdir(parents=True, exist_ok=True)
    info, shapes = _describe(path, conversion)
    serializer = writer.serializer(info)
    shards = list(shards)
    # The next episode is the one behind all finished shards and the intact part of the journal.
    with Journal(folder, len(shards)) as journal:
        first = sum(shard.episodes for shard in shards) + len(journal.digests)
        total = conversion.num_episodes
        numbers = tqdm(range(first, total), initial=first, total=total,
                       desc="converting", unit=" episodes")  # fmt: skip
        for number in numbers:
            if len(journal.digests) >= SHARD_EPISODES or journal.size >= SHARD_BYTES:
                shards = _close_shard(folder, path, conversion.request, shards, journal)
            # Checked, serialized, and safe in the journal.
            columns = _read_checked(conversion, number, shapes)
            record = serializer(_example(conversion, number, columns))
            journal.append(digest(columns), record)
        # The last shard has whatever is left.
        shards = _close_shard(folder, path, conversion.request, shards, journal)
    # The description comes last: without it no reader takes the folder for a data set.
    lengths = [shard.episodes for shard in shards]
    writer.save_info(info, path, lengths, sum(shard.bytes for shard in shards))
    return shards


def _describe(path: Path, conversion: Conversion) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """The data set's description and the shapes of a step, from its first episode."""
    if not conversion.num_episodes:
        raise UserError(f"{conversion.description}: expected at least 1 episode, got 0.")
    # Read once more, and checked, in every start: the first episode sets keys, shapes and types.
    columns = _read_checked(conversion, 0, None)
    first = _example(conversion, 0, columns)
    info = writer.describe(path, NAME, conversion.description, first, conversion.set_metadata)
    return info, {key: x.shape[1:] for key, x in columns.items()}


def _example(conversion: Conversion, number: int, columns: Mapping[str, np.ndarray]) -> dict:
    """An episode as RLDS nests it."""
    return examples.example(columns, conversion.observations, conversion.metadata(number))


def _read_checked(
    conversion: Conversion, number: int, shapes: Mapping[str, tuple[int, ...]] | None
) -> Mapping[str, np.ndarray]:
    """An episode of the source; a UserError if it is bad.

    shapes: {key: shape of one step} of all episodes; None if this is the first.
    """
    columns = conversion.read(number)
    shapes = shapes or {key: x.shape[1:] for key, x in columns.items()}
    for problem in checks.check_episode(columns, shapes):
        raise UserError(f"{conversion.request['source']}: episode {number}, {problem}.")
    return columns


def _close_shard(
    folder: Path, path: Path, request: Mapping, shards: list[Shard], journal: Journal
) -> list[Shard]:
    """Turns the journal into a shard and starts the next journal."""
    # The journal is empty if the last episode ended a shard.
    if not journal.digests:
        return shards
    # Shard and progress are on disk before the journal is deleted.
    shard = Shard(len(journal.digests), journal.size, journal.digests)
    writer.write_shard(path, NAME, len(shards), journal.records())
    shards = [*shards, shard]
    _save(folder, request, shards)  # from here on this journal is not read again
    journal.next()
    return shards
