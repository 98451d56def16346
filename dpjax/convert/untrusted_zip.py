"""Zip files that nobody vouches for: names are checked, sizes bounded, nothing is extracted."""

from collections.abc import Iterator
import contextlib
from pathlib import Path, PurePosixPath
import stat
import zipfile

from dpjax.convert.source import reading
from dpjax.core.errors import UserError
from dpjax.core.files import refuse_pointer


@contextlib.contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip of which every name lies inside it, once, and is a file or a folder."""
    refuse_pointer(path)
    with reading(f"{path}: no zip file"):
        archive = zipfile.ZipFile(path)
    with archive:
        _check_names(path, archive)
        yield archive


def _check_names(path: Path, archive: zipfile.ZipFile) -> None:
    seen = set()
    for item in archive.infolist():
        name = PurePosixPath(item.filename)
        link = stat.S_ISLNK(item.external_attr >> 16)
        if name.is_absolute() or ".." in name.parts or "\\" in item.filename or link:
            kind = "a symbolic link" if link else "a name that leads out of it"
            raise UserError(f"{path}: {item.filename!r} is {kind}: expected files inside.")
        if item.filename in seen:
            raise UserError(f"{path}: {item.filename!r} is in it twice, expected once.")
        if not item.filename.isprintable():  # it would break the line of an error in two
            raise UserError(f"{path}: {item.filename!r} is no name: expected printable letters.")
        seen.add(item.filename)


def read(path: Path, archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """The first `limit` + 1 bytes of a file in it, its CRC checked where that is all."""
    with reading(f"{path}: {name} can't be read"), archive.open(name) as file:
        return file.read(limit + 1)
