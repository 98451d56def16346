"""The journal of a shard: episodes are appended one by one and survive a kill."""

from collections.abc import Iterator
from pathlib import Path

from dpjax.data.rlds import records

DIGEST = 16  # bytes of the episode's digest that precede its record


class Journal:
    """The episodes of the shard that is being written, in a file `journal-<shard>`.

    digests: of its episodes, in hex.
    size: bytes of their records.
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
        """Reads what an interrupted run left of this shard, and opens the file behind it."""
        self._path = self._folder / f"journal-{self._shard:05d}"
        for old in set(self._folder.glob("journal-*")) - {self._path}:
            old.unlink()  # of a shard that is finished
        self._path.touch()
        self.digests: list[str] = []
        self.size = 0
        end = 0  # of the last intact episode
        for record in records.intact(self._path):
            self.digests.append(record[:DIGEST].hex())
            self.size += len(record) - DIGEST
            end += records.framed_size(record)
        # Whatever follows was cut by a kill, and is overwritten.
        self._file = open(self._path, "r+b")
        self._file.truncate(end)
        self._file.seek(end)

    def append(self, digest: str, record: bytes) -> None:
        """Adds an episode; once this returns, a kill of this process does not lose it."""
        self._file.write(records.frame(bytes.fromhex(digest) + record))
        self._file.flush()  # to the kernel
        self.digests.append(digest)
        self.size += len(record)

    def records(self) -> Iterator[bytes]:
        """The records of its episodes, without their digests."""
        return (record[DIGEST:] for record in records.intact(self._path))

    def next(self) -> None:
        """Starts the journal of the next shard, and deletes this one."""
        self._file.close()
        self._shard += 1
        self._open()
