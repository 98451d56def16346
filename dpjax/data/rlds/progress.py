"""The file progress.json of an unfinished conversion: what was asked for, and what is finished."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dpjax.core import files
from dpjax.core.errors import UserError
from dpjax.data.episodes import digest
from dpjax.data.rlds.conversion import SOURCE_STATE


class Shard(NamedTuple):
    """A finished shard.

    episodes: the number of its episodes. bytes: the total size of its records.
    digests: the digests of its episodes, in hex.
    """

    episodes: int
    bytes: int
    digests: list[str]


class Progress(NamedTuple):
    """What an interrupted conversion has left.

    shards: the finished ones.
    changed: how the source was and is, if its files have changed since; "" if they have not.
    """

    shards: list[Shard]
    changed: str = ""


def load(folder: Path, request: Mapping[str, Any]) -> Progress:
    """What is finished; a UserError if the folder was started with another request.

    The files of the source may have changed: somebody mended a bad episode. What was converted of
    it has to be the same then (`check_unchanged`).
    """
    file = folder / "progress.json"
    # Through JSON once, which turns tuples into lists, so that it compares equal to the file.
    request = json.loads(json.dumps(request))
    # A new conversion starts with an empty list of shards.
    if not file.exists():
        save(folder, request, [])
        return Progress([])
    # The request of the interrupted conversion, and the shards that it finished.
    try:
        content = json.loads(file.read_text())
        before = content["asked"]
        shards = [Shard(*shard) for shard in content["shards"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: can't be read ({error}). Remove {folder}.") from error
    # With other arguments, the result would be a mixture of two data sets.
    changed = ""
    for key in sorted({*before, *request}):
        if before.get(key) == request.get(key):
            continue
        difference = f"was started with {key}={before.get(key)}, now it is {request.get(key)}"
        if key != SOURCE_STATE:
            raise UserError(
                f"{folder} {difference}: give the same arguments to go on, or remove it to start "
                "anew."
            )
        changed = difference
    return Progress(shards, changed)


def save(folder: Path, request: Mapping[str, Any], shards: list[Shard]) -> None:
    """Writes progress.json."""
    # Atomically: a kill leaves the old file or the new one, never half of it.
    content = json.dumps({"asked": request, "shards": shards})
    files.write_atomically(folder / "progress.json", content)


def check_unchanged(
    folder: Path,
    changed: str,
    read: Callable[[int], Mapping[str, np.ndarray]],
    good: Sequence[int],
    digests: Sequence[str],
    bad: Iterable[int],
) -> None:
    """Reads again what was converted of a source that has changed since.

    changed: how it changed, as in `Progress`.
    read: number of an episode -> its columns; raises a UserError if it is bad.
    good: numbers of the good episodes, of which the first were converted.
    digests: those of the converted episodes.
    bad: numbers of those that were left out.
    Raises a UserError that names the first episode that is not as it was.
    """
    if len(digests) > len(good):
        raise UserError(
            f"{folder} {changed}: {len(digests)} of its episodes are done, and {len(good)} are "
            "there: remove the folder to start anew."
        )
    for number, before in [*zip(good, digests), *((number, None) for number in bad)]:
        try:
            now = digest(read(number))
        except UserError:
            now = None
        if now != before:
            raise UserError(
                f"{folder} {changed}, and so is its episode {number}, which is done: remove the "
                "folder to start anew."
            )
