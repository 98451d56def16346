"""Reads untrusted zip files: names are checked, sizes are bounded, nothing is extracted."""

from collections.abc import Iterator
import contextlib
import logging
from pathlib import Path, PurePosixPath
import stat
import zipfile

from dpjax.convert.source import as_user_error
from dpjax.core.errors import UserError
from dpjax.core.files import refuse_pointer
from dpjax.core.unread import listed

log = logging.getLogger("dpjax")


@contextlib.contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """Opens a zip; raises a UserError if a name in it is not relative and printable."""
    refuse_pointer(path)
    with as_user_error(f"{path}: not a zip file"):
        archive = zipfile.ZipFile(path)
    with archive:
        _check_names(path, archive)
        yield archive


def _check_names(path: Path, archive: zipfile.ZipFile) -> None:
    """Raises a UserError for a name that leads out of the zip or can't be printed."""
    # Nothing is extracted, so such a name could do no harm here. It is refused all the same: a zip
    # that has one was crafted to attack a program that does extract it.
    seen = set()
    twice: list[str] = []
    for item in archive.infolist():
        name = PurePosixPath(item.filename)
        link = stat.S_ISLNK(item.external_attr >> 16)  # the upper 16 bits are Unix's file mode
        if name.is_absolute() or ".." in name.parts or "\\" in item.filename or link:
            kind = "a symbolic link" if link else "a name that leads out of it"
            raise UserError(f"{path}: {item.filename!r} is {kind}: expected files inside.")
        # A line feed in a name would break a later error message into two lines.
        if not item.filename.isprintable():
            raise UserError(f"{path}: {item.filename!r} is not a name: expected printable letters.")
        # Appending to a zip writes a member again, and the last one of a name counts.
        if item.filename in seen:
            twice.append(item.filename)
        seen.add(item.filename)
    if twice:
        log.warning(
            "%s: %s: more than once in it, as after appending: the last one is read", path,
            listed(list(dict.fromkeys(twice))),
        )  # fmt: skip


def read(path: Path, archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
    """Returns at most the first limit + 1 bytes of a file in the zip.

    If the caller gets more than `limit` bytes, the file is too large. zipfile checks the CRC of
    a file that is read to its end.
    """
    # The zip's directory has a size as well, but it may be wrong: only reading shows the real one.
    with as_user_error(f"{path}: {name} can't be read"), archive.open(name) as file:
        return file.read(limit + 1)
