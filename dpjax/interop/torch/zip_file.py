"""Checks that a file is a zip as torch.save writes it, before an entry is read.

Entries must be uncompressed and in one folder. They must not overlap or reach beyond the end of
the file.
"""

from collections.abc import Iterable
from pathlib import Path
import stat
import struct
from typing import BinaryIO
import zipfile

from dpjax.core import files
from dpjax.core.errors import UserError

MAX_PICKLE = 2**24  # bytes of data.pkl; 500 tensors and their optimizer take 300 kB
MAX_ENTRIES = 100_000  # entries of the zip, one per tensor


def check_format(path: Path) -> None:
    """Raises UserError for a file that is not a zip, and says what it is instead."""
    if not path.is_file():
        what = "a folder" if path.is_dir() else "nothing"
        raise UserError(f"{path}: expected a file that torch.save wrote, got {what}.")
    files.refuse_pointer(path)  # a Git LFS pointer instead of the file
    with open(path, "rb") as file:
        head = file.read(512)
    # Older formats: a bare pickle starts with 0x80, a tar has "ustar" at byte 257.
    if head[:1] == b"\x80" or head[257:262] == b"ustar":
        raise UserError(
            f"{path}: torch's format from before 1.6 (no zip) is not read: load the file with "
            "torch and save it again."
        )
    if head[:4] != b"PK\x03\x04":
        raise UserError(f"{path}: expected a zip that torch.save wrote, got {head[:4]!r}.")


def check_entries(path: Path, file: zipfile.ZipFile) -> str:
    """The zip's root folder; raises UserError for entries that torch.save does not write."""
    # infolist reads the zip's directory, not the entries themselves.
    entries = file.infolist()
    if len(entries) > MAX_ENTRIES:
        raise UserError(f"{path}: {len(entries)} entries, {MAX_ENTRIES} at most.")
    roots = {entry.filename.split("/")[0] for entry in entries}
    names = {entry.filename for entry in entries}
    root = min(roots, default="")
    for entry in entries:
        if problem := _entry_problem(entry):
            raise UserError(f"{path}: entry {entry.filename[:80]!r}: {problem}.")
    # With two entries of one name, two readers could see different contents.
    if len(roots) != 1 or len(names) != len(entries) or f"{root}/data.pkl" not in names:
        raise UserError(
            f"{path}: expected the entries of one torch.save, each once, data.pkl among them, got "
            f"{len(entries)} entries, {len(names)} names, folders {sorted(roots)[:3]}."
        )
    # The pickle is read into memory, so its size is bounded.
    size = file.getinfo(f"{root}/data.pkl").file_size
    if size > MAX_PICKLE:
        raise UserError(f"{path}: data.pkl has {size} bytes, {MAX_PICKLE} at most.")
    _check_places(path, file.fp, entries)
    return root


def _entry_problem(entry: zipfile.ZipInfo) -> str:
    """What is wrong with an entry of the zip, or ""."""
    # Nothing is unpacked to the disk, but such a name means that torch did not write the file.
    parts = entry.filename.split("/")
    if entry.filename != entry.orig_filename or set(parts) & {"", ".", ".."} or len(parts) < 2:
        return "expected a name such as archive/data/0"
    if "\\" in entry.filename or ":" in parts[0]:
        return "expected a name such as archive/data/0"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "a link"
    if entry.flag_bits & 1:
        return "encrypted"
    # torch never compresses. Reading a compressed entry could expand it a thousandfold.
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        return f"compressed to {entry.compress_size} of {entry.file_size} bytes; torch stores them"
    return ""


def _check_places(path: Path, file: BinaryIO, entries: Iterable[zipfile.ZipInfo]) -> None:
    """Raises UserError if entries overlap or reach beyond the end of the file."""
    end = 0
    name = "the start of the file"
    # In the order of the file, no entry may begin before the previous one ends.
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.header_offset < end:
            raise UserError(f"{path}: entry {entry.filename[:80]!r} overlaps {name[:80]!r}.")
        file.seek(entry.header_offset)
        # The local header of 30 bytes ends with the lengths of the name and the extra field,
        # which follow it and precede the content.
        head = file.read(30)
        sizes = struct.unpack("<HH", head[26:30]) if len(head) == 30 else (0, 0)
        end = entry.header_offset + 30 + sum(sizes) + entry.file_size
        name = entry.filename
    if end > path.stat().st_size:
        raise UserError(f"{path}: entry {name[:80]!r} ends at byte {end}, beyond the file's end.")
