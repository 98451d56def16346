"""The raw records of the shards of a data set, each shard whole and checked.

ArrayRecord hashes its chunks and its reader verifies them. TFRecord frames a record as

    length u64 | masked crc32c of length u32 | record | masked crc32c of record u32   (1)

little-endian, masked = rotate_right(crc, 15) + 0xa282ead8; both are verified here,
the length's before it is believed. A file cut between two records is whole by both
rules: only the count in dataset_info.json tells.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
import struct

from dpjax.core.errors import UserError
from dpjax.core.files import refuse_pointer

BLOCK = 256  # records in memory at once


def read_shards(
    paths: Sequence[Path], lengths: Sequence[int], file_format: str
) -> Iterator[tuple[Path, bytes]]:
    """(file, record) of all records of all shards, in order."""
    if file_format not in READERS:
        raise UserError(
            f"{Path(paths[0]).parent}: file format {file_format!r} can't be read; "
            f"expected one of {', '.join(READERS)}."
        )
    for path in paths:  # all of them before the first is read: fail early
        _check_file(path)
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
    if not path.is_file():
        raise UserError(f"{path}: missing shard. Copy it again, beside its dataset_info.json.")
    refuse_pointer(path)


def _corrupt(path: Path, what: object) -> UserError:
    return UserError(f"{path}: truncated or corrupt ({what}). Copy it again.")


def _array_records(path: Path) -> Iterator[bytes]:
    # Imported here: it is a compiled module that tfrecord sets don't need.
    from array_record.python.array_record_module import ArrayRecordReader

    reader = None
    try:
        reader = ArrayRecordReader(str(path))
        count = reader.num_records()
        if not count:
            reader.read_all()  # a broken file counts 0 in silence; this says what is wrong
        for begin in range(0, count, BLOCK):
            yield from reader.read(begin, min(begin + BLOCK, count))
    except (RuntimeError, IndexError, ValueError) as error:
        raise _corrupt(path, str(error)[:160]) from error
    finally:
        if reader is not None and reader.ok():
            reader.close()


def _tf_records(path: Path) -> Iterator[bytes]:
    left = path.stat().st_size
    with open(path, "rb") as file:
        while left:
            head = file.read(12)
            if len(head) < 12:
                raise _corrupt(path, f"{len(head)} bytes of a 12-byte header")
            if _masked_crc(head[:8]) != struct.unpack("<I", head[8:])[0]:
                raise _corrupt(path, "CRC of a record's length differs")
            (length,) = struct.unpack("<Q", head[:8])
            left -= 12 + length + 4
            if left < 0:
                raise _corrupt(path, f"the last record is {-left} bytes short")
            record, tail = file.read(length), file.read(4)
            if _masked_crc(record) != struct.unpack("<I", tail)[0]:
                raise _corrupt(path, "CRC of a record differs")
            yield record


def whole(path: Path) -> Iterator[bytes]:
    """The TFRecords of a file up to the first that is cut or spoilt."""
    try:
        yield from _tf_records(path)
    except UserError:
        return


def frame(record: bytes) -> bytes:
    """A record as (1) has it."""
    length = struct.pack("<Q", len(record))
    crcs = [struct.pack("<I", _masked_crc(part)) for part in (length, record)]
    return b"".join([length, crcs[0], record, crcs[1]])


def framed_size(record: bytes) -> int:
    """Bytes of the frame of a record."""
    return 12 + len(record) + 4


def _masked_crc(payload: bytes) -> int:
    import google_crc32c  # a CRC in Python would take minutes

    crc = google_crc32c.value(payload)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


READERS = {"array_record": _array_records, "tfrecord": _tf_records}
