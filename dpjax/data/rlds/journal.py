"""The journal of an unfinished shard: once an episode is appended, it survives a kill."""

from collections.abc import Iterator
import contextlib
from pathlib import Path

from dpjax.core import files
from dpjax.core.errors import UserError
from dpjax.data.rlds import records

# An entry of the journal is the episode's digest, this many bytes, and then its record.
DIGEST = 16


class Journal:
    """The episodes of the shard that is being written, in a file `journal-<shard>`.

    digests: the digests of the episodes in the journal, in hex.
    size: the total size of their records, in bytes.
    """

    def __init__(self, folder: Path, shard: int):
        self._folder = folder
        self._shard = shard
        self._open()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def _open(self) -> None:
        """Reads the entries that an interrupted run left, and opens the file for appending."""
        self._path = self._folder / f"journal-{self._shard:05d}"
        # Other journals belong to shards that are finished.
        for old in set(self._folder.glob("journal-*")) - {self._path}:
            old.unlink()
        self._path.touch()
        self.digests: list[str] = []
        self.size = 0
        # Read the intact entries; `end` is the position in the file behind the last one.
        end = 0
        for record in records.intact(self._path):
            self.digests.append(record[:DIGEST].hex())
            self.size += len(record) - DIGEST
            end += records.framed_size(record)
        # What follows is an entry that a kill cut short: it is removed.
        # "r+b": read and write without emptying the file.
        self._file = open(self._path, "r+b")
        self._file.truncate(end)
        self._file.seek(end)

    def append(self, digest: str, record: bytes) -> None:
        """Adds an episode; once this returns, killing the process does not lose it."""
        self._file.write(records.frame(bytes.fromhex(digest) + record))
        # To the kernel, which keeps it when the process dies. A power cut may lose it.
        self._file.flush()
        self.digests.append(digest)
        self.size += len(record)

    def records(self) -> Iterator[bytes]:
        """The records of the episodes in the journal, without their digests."""
        return (record[DIGEST:] for record in records.intact(self._path))

    def next(self) -> None:
        """Starts the journal of the next shard, and deletes this one."""
        self._file.close()
        # `_open` deletes the journals of all other shards.
        self._shard += 1
        self._open()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
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
