"""Writes an RLDS data set in a way that can be interrupted and continued, for long conversions.

    OUT.incomplete/
        lock              held by the process that writes
        progress.json     the request, the finished shards, and the digests of their episodes
        journal-<shard>   the episodes of the unfinished shard, framed as TFRecords
        data/1.0.0/       the finished shards

An interrupted conversion continues behind the last episode in the journal. If that episode was cut
short, its CRC does not match and it is written again. Shards end at fixed numbers of episodes or
bytes, and records are serialized deterministically, so the result has the same bytes however often
the conversion was interrupted. The data set is read back and verified before `data` is renamed to
OUT. An error in the source deletes the folder; a kill, Ctrl-C or a full disk deletes nothing.
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

NAME = "demos"  # the data set's name, with which the names of its files begin
# A shard ends when it reaches either limit. Changing them changes the bytes of the result.
SHARD_EPISODES = 1000
SHARD_BYTES = 2**28


class Conversion(NamedTuple):
    """The input of `write`: a source of episodes, and how the data set describes itself.

    request: the arguments and the state of the source, as JSON. An interrupted conversion is only
        continued with the same request.
    num_episodes: the number of episodes in the source.
    read: number of an episode -> {key: [T, ...]}, float32 or images.
    metadata: number of an episode -> {name: scalar}.
    observations: the keys that go under steps/observation.
    description: text about the data set, for its users.
    set_metadata: {name: scalar} of the data set as a whole, for its metadata.json.
    """

    request: Mapping[str, Any]
    num_episodes: int
    read: Callable[[int], Mapping[str, np.ndarray]]
    metadata: Callable[[int], Mapping[str, Any]]
    observations: Sequence[str]
    description: str
    set_metadata: Mapping[str, Any]


class Shard(NamedTuple):
    """A finished shard.

    episodes: the number of episodes.
    bytes: the total size of their records.
    digests: the digest of each episode, in hex.
    """

    episodes: int
    bytes: int
    digests: list[str]


def write(out: Path, conversion: Conversion, verify: Callable[[Path, list[str]], None]) -> Path:
    """Writes a data set, or continues an interrupted conversion.

    Args:
        out: must not exist.
        verify: called with the version directory and the digests of all episodes before the data
            set is renamed to `out`; raises a UserError if what it reads back differs.

    Returns:
        The version directory, out/1.0.0.

    Raises:
        UserError: if `out` exists, another process is writing it, the conversion was started with
            another request, an episode is bad, or the disk is full.
    """
    if out.exists():
        raise UserError(f"{out} exists already. Remove it or write to another directory.")
    folder = out.with_name(f"{out.name}.incomplete")
    # Everything is written to a locked folder beside `out`, which is renamed at the end.
    with _locked(folder):
        shards = _resume(folder, conversion.request)
        try:
            shards = _write(folder, conversion, shards)
            digests = [text for shard in shards for text in shard.digests]
            verify(folder / "data" / writer.VERSION, digests)
        except UserError:
            # A bad episode: the source must be corrected, so what was converted is of no use.
            shutil.rmtree(folder)
            raise
        except OSError as error:
            # Usually a full disk: the folder stays, so that the conversion can be continued.
            raise UserError(
                f"{folder}: {error.strerror or error}. What is done is kept there: mend it and "
                "start the same command again, or remove it."
            ) from error
        # The data set is complete and verified.
        (folder / "data").rename(out)
        shutil.rmtree(folder)
    return out / writer.VERSION


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Makes the folder and locks it against a second process."""
    # An interrupted conversion leaves its folder and the lock file. The lock itself is released
    # when its process ends.
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
    # Through JSON once, which turns tuples into lists, so that it compares equal to the file.
    request = json.loads(json.dumps(request))
    # A new conversion starts with an empty list of shards.
    if not file.exists():
        _save(folder, request, [])
        return []
    # The request of the interrupted conversion, and the shards that it finished.
    try:
        progress = json.loads(file.read_text())
        before = progress["asked"]
        shards = [Shard(*shard) for shard in progress["shards"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: can't be read ({error}). Remove {folder}.") from error
    # With other arguments or a changed source, the result would be a mixture of two data sets.
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
    # Atomically: a kill leaves the old file or the new one, never half of it.
    content = json.dumps({"asked": request, "shards": shards})
    files.write_atomically(folder / "progress.json", content)


def _write(folder: Path, conversion: Conversion, shards: list[Shard]) -> list[Shard]:
    """Writes all episodes that are in neither the shards nor the journal; returns all shards."""
    # The description of the data set, by which episodes are serialized.
    path = folder / "data" / writer.VERSION
    path.mkdir(parents=True, exist_ok=True)
    info, shapes = _describe(path, conversion)
    serializer = writer.serializer(info)
    shards = list(shards)
    # Continue behind the episodes of the finished shards and of the journal.
    with Journal(folder, len(shards)) as journal:
        first = sum(shard.episodes for shard in shards) + len(journal.digests)
        total = conversion.num_episodes
        numbers = tqdm(range(first, total), initial=first, total=total,
                       desc="converting", unit=" episodes")  # fmt: skip
        for number in numbers:
            # Close the shard once it has reached one of its limits.
            if len(journal.digests) >= SHARD_EPISODES or journal.size >= SHARD_BYTES:
                shards = _close_shard(folder, path, conversion.request, shards, journal)
            # Read and check the episode, serialize it, and append it to the journal.
            columns = _read_checked(conversion, number, shapes)
            record = serializer(_example(conversion, number, columns))
            journal.append(digest(columns), record)
        # The remaining episodes make up the last shard.
        shards = _close_shard(folder, path, conversion.request, shards, journal)
    # dataset_info.json is written last: without it, readers do not accept the folder.
    lengths = [shard.episodes for shard in shards]
    writer.save_info(info, path, lengths, sum(shard.bytes for shard in shards))
    return shards


def _describe(path: Path, conversion: Conversion) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """The data set's description and the shapes of one step, both from the first episode."""
    if not conversion.num_episodes:
        raise UserError(f"{conversion.description}: expected at least 1 episode, got 0.")
    # The first episode sets keys, shapes and types, so it is read at every start.
    columns = _read_checked(conversion, 0, None)
    first = _example(conversion, 0, columns)
    info = writer.describe(path, NAME, conversion.description, first, conversion.set_metadata)
    return info, {key: x.shape[1:] for key, x in columns.items()}


def _example(conversion: Conversion, number: int, columns: Mapping[str, np.ndarray]) -> dict:
    """An episode as the nested dict that RLDS stores."""
    return examples.example(columns, conversion.observations, conversion.metadata(number))


def _read_checked(
    conversion: Conversion, number: int, shapes: Mapping[str, tuple[int, ...]] | None
) -> Mapping[str, np.ndarray]:
    """An episode of the source; a UserError if it is bad.

    shapes: {key: shape of one step} that every episode must have; None for the first episode.
    """
    columns = conversion.read(number)
    # The first episode is checked against its own shapes.
    shapes = shapes or {key: x.shape[1:] for key, x in columns.items()}
    for problem in checks.check_episode(columns, shapes):
        raise UserError(f"{conversion.request['source']}: episode {number}, {problem}.")
    return columns


def _close_shard(
    folder: Path, path: Path, request: Mapping, shards: list[Shard], journal: Journal
) -> list[Shard]:
    """Turns the journal into a shard and starts the next journal."""
    # Nothing to do if the journal is empty.
    if not journal.digests:
        return shards
    # The shard and the progress are written first; only then the journal is deleted.
    shard = Shard(len(journal.digests), journal.size, journal.digests)
    writer.write_shard(path, NAME, len(shards), journal.records())
    shards = [*shards, shard]
    _save(folder, request, shards)
    # A kill right here leaves the journal of a finished shard, which the next start deletes.
    journal.next()
    return shards
