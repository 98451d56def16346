"""Checks that a file is a zip as torch.save writes it, before an entry is read.

Entries must be stored uncompressed, lie in one folder, and neither overlap nor reach beyond
the end of the file.
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
MAX_ENTRIES = 100_000  # of the zip


def check_format(path: Path) -> None:
    """Refuses what is not a zip, by what it is instead."""
    if not path.is_file():
        what = "a folder" if path.is_dir() else "nothing"
        raise UserError(f"{path}: expected a file that torch.save wrote, got {what}.")
    files.refuse_pointer(path)
    with open(path, "rb") as file:
        head = file.read(512)
    # A bare pickle, or a tar.
    if head[:1] == b"\x80" or head[257:262] == b"ustar":
        raise UserError(
            f"{path}: torch's format from before 1.6 (no zip) is not read: load the file with "
            "torch and save it again."
        )
    if head[:4] != b"PK\x03\x04":
        raise UserError(f"{path}: expected a zip that torch.save wrote, got {head[:4]!r}.")


def check_entries(path: Path, file: zipfile.ZipFile) -> str:
    """The zip's root folder; raises UserError for entries that torch.save does not write."""
    # The directory of the zip is read; its entries are not yet.
    entries = file.infolist()
    if len(entries) > MAX_ENTRIES:
        raise UserError(f"{path}: {len(entries)} entries, {MAX_ENTRIES} at most.")
    roots = {entry.filename.split("/")[0] for entry in entries}
    names = {entry.filename for entry in entries}
    root = min(roots, default="")
    for entry in entries:
        if problem := _entry_problem(entry):
            raise UserError(f"{path}: entry {entry.filename[:80]!r}: {problem}.")
    # Two entries of one name, or a second archive inside, could show two readers two contents.
    if len(roots) != 1 or len(names) != len(entries) or f"{root}/data.pkl" not in names:
        raise UserError(
            f"{path}: expected the entries of one torch.save, each once, data.pkl among them, got "
            f"{len(entries)} entries, {len(names)} names, folders {sorted(roots)[:3]}."
        )
    # The pickle is decoded in memory, so its size is bounded.
    size = file.getinfo(f"{root}/data.pkl").file_size
    if size > MAX_PICKLE:
        raise UserError(f"{path}: data.pkl has {size} bytes, {MAX_PICKLE} at most.")
    _check_places(path, file.fp, entries)
    return root


def _entry_problem(entry: zipfile.ZipInfo) -> str:
    """What is wrong with an entry of the zip, or ""."""
    # Nothing is ever unpacked, but such names mean that torch did not write the file.
    parts = entry.filename.split("/")
    if entry.filename != entry.orig_filename or set(parts) & {"", ".", ".."} or len(parts) < 2:
        return "expected a name such as archive/data/0"
    if "\\" in entry.filename or ":" in parts[0]:
        return "expected a name such as archive/data/0"
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "a link"
    if entry.flag_bits & 1:
        return "encrypted"
    # torch never compresses. A compressed entry could grow a thousandfold when it is read.
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        return f"compressed to {entry.compress_size} of {entry.file_size} bytes; torch stores them"
    return ""


def _check_places(path: Path, file: BinaryIO, entries: Iterable[zipfile.ZipInfo]) -> None:
    """Refuses entries that overlap or reach beyond the end of the file."""
    end = 0
    name = "the start of the file"
    # In the order of the file, each entry must begin where the one before it has ended.
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.header_offset < end:
            raise UserError(f"{path}: entry {entry.filename[:80]!r} overlaps {name[:80]!r}.")
        file.seek(entry.header_offset)
        head = file.read(30)  # the local header, which ends with the sizes of what follows it
        sizes = struct.unpack("<HH", head[26:30]) if len(head) == 30 else (0, 0)
        end = entry.header_offset + 30 + sum(sizes) + entry.file_size
        name = entry.filename
    if end > path.stat().st_size:
        raise UserError(f"{path}: entry {name[:80]!r} ends at byte {end}, beyond the file's end.")
