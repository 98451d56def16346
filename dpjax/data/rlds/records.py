"""The raw records of the shards of a data set; every shard is complete and its checksums match.

ArrayRecord hashes its chunks and its reader verifies them. TFRecord frames a record as

    length u64 | masked crc32c of length u32 | record | masked crc32c of record u32   (1)

little-endian, masked = rotate_right(crc, 15) + 0xa282ead8. Both checksums are verified here, that
of the length before the length is used. A file that was cut between two records passes both, so
records are counted too: dataset_info.json says how many there are.

TFRecords are framed by hand, since the only other reader of them is TensorFlow itself.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
import struct

from dpjax.core import extras
from dpjax.core.errors import UserError
from dpjax.core.files import refuse_pointer

BLOCK = 256  # records of an ArrayRecord file that are in memory at once
HEADER = 12  # bytes of the length and its checksum in (1)
FOOTER = 4  # bytes of the record's checksum


def read_shards(
    paths: Sequence[Path], lengths: Sequence[int], file_format: str
) -> Iterator[tuple[Path, bytes]]:
    """Yields (file, record) of all records of all shards, in order.

    Args:
        lengths: how many records each shard must have.
        file_format: "array_record" or "tfrecord".

    Raises:
        UserError: for another format, or a shard that is missing, cut or corrupt.
    """
    if file_format not in READERS:
        raise UserError(
            f"{Path(paths[0]).parent}: file format {file_format!r} can't be read; "
            f"expected one of {', '.join(READERS)}."
        )
    for path in paths:  # all of them before the first is read, to fail early
        _check_file(path)
    # Records come as they are read. The count of a shard is known at its end.
    for path, length in zip(paths, lengths):
        count = 0
        for record in READERS[file_format](path):
            count += 1
            yield path, record
        if count != length:
            raise UserError(
                f"{path}: expected {length} episodes by dataset_info.json, got {count}. "
                "The file is cut or of another version: copy it again."
            )


def _check_file(path: Path) -> None:
    """Raises a UserError if the shard is missing or a Git LFS pointer."""
    if not path.is_file():
        raise UserError(f"{path}: missing shard. Copy it again, beside its dataset_info.json.")
    refuse_pointer(path)


def _corrupt(path: Path, reason: object) -> UserError:
    """The error for a file whose bytes are not what was written."""
    return UserError(f"{path}: truncated or corrupt ({reason}). Copy it again.")


def _array_records(path: Path) -> Iterator[bytes]:
    """Yields the records of an ArrayRecord file."""
    module = extras.require("array_record.python.array_record_module", extra="data")
    reader = None
    try:
        reader = module.ArrayRecordReader(str(path))
        count = reader.num_records()
        if not count:
            # The count of a broken file is 0 without an error; reading it raises one.
            reader.read_all()
        for start in range(0, count, BLOCK):
            yield from reader.read(start, min(start + BLOCK, count))
    except (RuntimeError, IndexError, ValueError) as error:
        raise _corrupt(path, str(error)[:160]) from error
    finally:
        if reader is not None and reader.ok():
            reader.close()


def _tf_records(path: Path) -> Iterator[bytes]:
    """Yields the records of a TFRecord file, framed as in (1)."""
    remaining = path.stat().st_size
    with open(path, "rb") as file:
        while remaining:
            # The length, and whether it can be trusted.
            header = file.read(HEADER)
            if len(header) < HEADER:
                raise _corrupt(path, f"{len(header)} bytes of a {HEADER}-byte header")
            if _masked_crc(header[:8]) != struct.unpack("<I", header[8:])[0]:
                raise _corrupt(path, "CRC of a record's length differs")
            (length,) = struct.unpack("<Q", header[:8])
            # Compared with the size of the file first: a wrong length must not allocate memory.
            remaining -= HEADER + length + FOOTER
            if remaining < 0:
                raise _corrupt(path, f"the last record is {-remaining} bytes short")
            # The record, and whether it is what was written.
            record = file.read(length)
            if _masked_crc(record) != struct.unpack("<I", file.read(FOOTER))[0]:
                raise _corrupt(path, "CRC of a record differs")
            yield record


def intact(path: Path) -> Iterator[bytes]:
    """Yields the TFRecords of a file up to the first that is cut or corrupt."""
    try:
        yield from _tf_records(path)
    except UserError:
        return


def frame(record: bytes) -> bytes:
    """A record with its frame (1)."""
    # Both checksums of (1).
    length = struct.pack("<Q", len(record))
    crc_of_length, crc_of_record = (
        struct.pack("<I", _masked_crc(part)) for part in (length, record)
    )
    return b"".join([length, crc_of_length, record, crc_of_record])


def framed_size(record: bytes) -> int:
    """Bytes of a record with its frame."""
    return HEADER + len(record) + FOOTER


def _masked_crc(payload: bytes) -> int:
    """The checksum of (1): crc32c, rotated by 15 bits, plus a constant."""
    # In C: a CRC in Python would take minutes per data set.
    crc = extras.require("google_crc32c", extra="data").value(payload)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


READERS: dict[str, Callable[[Path], Iterator[bytes]]] = {
    "array_record": _array_records,
    "tfrecord": _tf_records,
}
