"""Writes an RLDS data set in a way that can be interrupted and continued, for long conversions.

    OUT.incomplete/
        lock              held by the process that writes
        progress.json     the request, the finished shards, and the digests of their episodes
        skipped.json      the bad episodes that were left out, and why
        journal-<shard>   the episodes of the unfinished shard, framed as TFRecords
        data/1.0.0/       the finished shards

An interrupted conversion continues behind the last episode in the journal. If that episode was cut
short, its CRC does not match and it is written again. Shards end at fixed numbers of episodes or
bytes, and records are serialized deterministically, so the result has the same bytes however often
the conversion was interrupted. The data set is read back and verified before `data` is renamed to
OUT. Bad episodes are all looked for before they are reported, and what is written by then stays:
the next start leaves them out, if it is told to. Only a failed verification deletes the folder.
"""

from collections.abc import Callable, Mapping
import functools
from pathlib import Path
import shutil
from typing import Any

import numpy as np
from tqdm import tqdm

from dpjax.core.errors import UserError
from dpjax.core.extras import MissingExtra
from dpjax.data import checks
from dpjax.data.episodes import digest
from dpjax.data.rlds import bad_episodes, examples, progress, writer
from dpjax.data.rlds import journal as journal_lib
from dpjax.data.rlds.conversion import Conversion
from dpjax.data.rlds.journal import Journal
from dpjax.data.rlds.progress import Progress, Shard

NAME = "demos"  # the data set's name, with which the names of its files begin
# A shard ends when it reaches either limit. Changing them changes the bytes of the result.
SHARD_EPISODES = 1000
SHARD_BYTES = 2**28


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
    with journal_lib.locked(folder):
        before = progress.load(folder, conversion.request)
        shards = before.shards
        try:
            shards = _write(folder, conversion, before)
            digests = [text for shard in shards for text in shard.digests]
            _verify(folder, verify, digests)
        except UserError:
            # Nothing is written yet: the folder would only be in the way.
            if not shards and not any(file.stat().st_size for file in folder.glob("journal-*")):
                shutil.rmtree(folder, ignore_errors=True)
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


def _verify(folder: Path, verify: Callable[[Path, list[str]], None], digests: list[str]) -> None:
    """Reads the data set back. What differs from what was written is of no use, and is deleted."""
    try:
        verify(folder / "data" / writer.VERSION, digests)
    except UserError:
        shutil.rmtree(folder)
        raise


def _write(folder: Path, conversion: Conversion, before: Progress) -> list[Shard]:
    """Writes all good episodes that are in neither the shards nor the journal; returns all shards.

    Raises a UserError that lists the bad ones, unless they are to be left out.
    """
    bad = bad_episodes.load(folder)
    # The description of the data set, by which episodes are serialized.
    path = folder / "data" / writer.VERSION
    path.mkdir(parents=True, exist_ok=True)
    info, shapes = _describe(path, conversion, bad)
    serializer = writer.serializer(info)
    shards = list(before.shards)
    # Continue behind the episodes of the finished shards and of the journal.
    with Journal(folder, len(shards)) as journal:
        done = [text for shard in shards for text in shard.digests] + journal.digests
        # The episodes that were left out are in neither.
        good = [number for number in range(conversion.num_episodes) if number not in bad]
        if before.changed:
            read = functools.partial(_read_checked, conversion, shapes=shapes)
            progress.check_unchanged(folder, before.changed, read, good, done, bad)
            progress.save(folder, conversion.request, shards)
        todo = good[len(done) :]
        total = conversion.num_episodes
        numbers = tqdm(todo, initial=total - len(todo), total=total,
                       desc="converting", unit=" episodes")  # fmt: skip
        for number in numbers:
            # Close the shard once it has reached one of its limits.
            if len(journal.digests) >= SHARD_EPISODES or journal.size >= SHARD_BYTES:
                shards = _close_shard(folder, path, conversion.request, shards, journal)
            try:
                columns = _read_checked(conversion, number, shapes)
            except MissingExtra:
                raise  # says nothing about the episode
            except UserError as error:
                bad[number] = str(error)
                if conversion.skip_bad:
                    bad_episodes.save(folder, bad)
                numbers.set_postfix(bad=len(bad))
                continue
            # Behind a bad episode nothing is written, but the others are looked at: all bad ones
            # are reported at once.
            if conversion.skip_bad or not bad:
                record = serializer(_example(conversion, number, columns))
                journal.append(digest(columns), record)
        if bad:
            bad_episodes.report(conversion, bad, folder)
        # The remaining episodes make up the last shard.
        shards = _close_shard(folder, path, conversion.request, shards, journal)
    # dataset_info.json is written last: without it, readers do not accept the folder.
    lengths = [shard.episodes for shard in shards]
    writer.save_info(info, path, lengths, sum(shard.bytes for shard in shards))
    return shards


def _describe(
    path: Path, conversion: Conversion, bad: dict[int, str]
) -> tuple[Any, dict[str, tuple[int, ...]]]:
    """The data set's description and the shapes of one step, both from the first good episode.

    bad: {number: reason}, to which the bad episodes before it are added.
    """
    if not conversion.num_episodes:
        raise UserError(f"{conversion.description}: expected at least 1 episode, got 0.")
    for number in range(conversion.num_episodes):
        if number in bad:
            continue
        try:
            columns = _read_checked(conversion, number, None)
        except MissingExtra:
            raise
        except UserError as error:
            bad[number] = str(error)
            continue
        first = _example(conversion, number, columns)
        info = writer.describe(path, NAME, conversion.description, first, conversion.set_metadata)
        return info, {key: x.shape[1:] for key, x in columns.items()}
    raise UserError(
        f"{conversion.request['source']}: all {len(bad)} episodes are bad; {bad[0]}",
        argument="on_bad",
    )


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
        where = conversion.label(number)
        raise UserError(f"{conversion.request['source']}: {where}, {problem}.")
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
    progress.save(folder, request, shards)
    # A kill right here leaves the journal of a finished shard, which the next start deletes.
    journal.next()
    return shards
