"""Reads the raw records of a file, and verifies their checksums.

ArrayRecord hashes its chunks, and its reader verifies the hashes. A TFRecord file frames each
record as

    length u64 | masked crc32c of length u32 | record | masked crc32c of record u32   (1)

in little-endian order, with masked = rotate_right(crc, 15) + 0xa282ead8. Both checksums are
verified here; that of the length is verified before the length is used. They do not detect a file
that was cut between two records; `shards.read_split` counts the records for that.

The TFRecord format is implemented here because its usual reader is TensorFlow itself.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
import struct

from dpjax.core import extras
from dpjax.core.errors import UserError

BLOCK = 256  # records that are read from an ArrayRecord file at a time
HEADER = 12  # bytes before the record in (1): the length and its checksum
FOOTER = 4  # bytes after the record in (1): its checksum


class LostShard(UserError):
    """A shard is missing, cut or corrupt; without it, the others can be read."""


def _corrupt(path: Path, reason: object) -> LostShard:
    """The error for a shard whose bytes have changed since they were written."""
    return LostShard(f"{path}: truncated or corrupt ({reason}). Copy it again.")


def _array_records(path: Path) -> Iterator[bytes]:
    """Yields the records of an ArrayRecord file."""
    module = extras.require("array_record.python.array_record_module", extra="data")
    reader = None
    try:
        reader = module.ArrayRecordReader(str(path))
        count = reader.num_records()
        if not count:
            # For a broken file num_records() returns 0 and raises nothing; read_all() raises.
            reader.read_all()
        # In blocks, since all records of a file may not fit into memory.
        for start in range(0, count, BLOCK):
            yield from reader.read(start, min(start + BLOCK, count))
    except (RuntimeError, IndexError, ValueError) as error:
        raise _corrupt(path, str(error)[:160]) from error
    finally:
        # Closing a reader that has failed would raise once more.
        if reader is not None and reader.ok():
            reader.close()


def _tf_records(path: Path) -> Iterator[bytes]:
    """Yields the records of a TFRecord file, framed as in (1)."""
    remaining = path.stat().st_size
    with open(path, "rb") as file:
        while remaining:
            # Read the length of the next record and verify its checksum.
            header = file.read(HEADER)
            if len(header) < HEADER:
                raise _corrupt(path, f"{len(header)} bytes of a {HEADER}-byte header")
            if _masked_crc(header[:8]) != struct.unpack("<I", header[8:])[0]:
                raise _corrupt(path, "CRC of a record's length differs")
            (length,) = struct.unpack("<Q", header[:8])
            # Compare the length with what is left of the file before allocating memory for it.
            remaining -= HEADER + length + FOOTER
            if remaining < 0:
                raise _corrupt(path, f"the last record is {-remaining} bytes short")
            # Read the record and verify its checksum.
            record = file.read(length)
            if _masked_crc(record) != struct.unpack("<I", file.read(FOOTER))[0]:
                raise _corrupt(path, "CRC of a record differs")
            yield record


def intact(path: Path) -> Iterator[bytes]:
    """Yields the TFRecords of a file up to the first one that is cut or corrupt."""
    # For journals, whose last record may be incomplete.
    try:
        yield from _tf_records(path)
    except UserError:
        return


def frame(record: bytes) -> bytes:
    """The record framed as in (1)."""
    # Little-endian: "<Q" is a u64, "<I" a u32.
    length = struct.pack("<Q", len(record))
    crc_of_length, crc_of_record = (
        struct.pack("<I", _masked_crc(part)) for part in (length, record)
    )
    return b"".join([length, crc_of_length, record, crc_of_record])


def framed_size(record: bytes) -> int:
    """The size of a framed record in bytes."""
    return HEADER + len(record) + FOOTER


def _masked_crc(payload: bytes) -> int:
    """The checksum of (1): crc32c, rotated by 15 bits, plus a constant."""
    # A library in C: pure Python would take minutes per data set.
    crc = extras.require("google_crc32c", extra="data").value(payload)
    # `&` keeps 32 bits of the rotation and the sum, as C's unsigned arithmetic would.
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


# {name of the file format in dataset_info.json: function that yields the records of a file}.
READERS: dict[str, Callable[[Path], Iterator[bytes]]] = {
    "array_record": _array_records,
    "tfrecord": _tf_records,
}
