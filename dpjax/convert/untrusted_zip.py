"""Zip files from strangers: names are checked, sizes are bounded, nothing is extracted."""

from collections.abc import Iterator
import contextlib
from pathlib import Path, PurePosixPath
import stat
import zipfile

from dpjax.convert.source import as_user_error
from dpjax.core.errors import UserError
from dpjax.core.files import refuse_pointer


@contextlib.contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens a zip; raises a UserError unless each name is unique and lies inside the zip."""
    refuse_pointer(path)
    with as_user_error(f"{path}: not a zip file"):
        archive = zipfile.ZipFile(path)
    with archive:
        _check_names(path, archive)
        yield archive


def _check_names(path: Path, archive: zipfile.ZipFile) -> None:
    # Nothing is extracted, so a bad name could do no harm here. It is refused all the same: a zip
    # that has one was made to harm somebody.
    seen = set()
    for item in archive.infolist():
        name = PurePosixPath(item.filename)
        link = stat.S_ISLNK(item.external_attr >> 16)  # the upper 16 bits are Unix's file mode
        if name.is_absolute() or ".." in name.parts or "\\" in item.filename or link:
            kind = "a symbolic link" if link else "a name that leads out of it"
            raise UserError(f"{path}: {item.filename!r} is {kind}: expected files inside.")
        # Two files of one name: which one is read would depend on the reader.
        if item.filename in seen:
            raise UserError(f"{path}: {item.filename!r} is in it twice, expected once.")
        # A line feed would break the line of a later error in two.
        if not item.filename.isprintable():
            raise UserError(f"{path}: {item.filename!r} is not a name: expected printable letters.")
        seen.add(item.filename)


def read(path: Path, archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Returns at most the first limit + 1 bytes of a file in the zip.

    More than `limit` bytes tell the caller that the file is too large. zipfile checks the CRC
    of a file that is read to its end.
    """
    # The size in the zip's directory may lie: only reading shows how much is there.
    with as_user_error(f"{path}: {name} can't be read"), archive.open(name) as file:
        return file.read(limit + 1)
