"""Files: atomic writes, locks, and detection of Git LFS pointers."""

import os
from pathlib import Path
import secrets
from typing import IO

from dpjax.core.errors import UserError


def write_atomically(path: str | Path, content: bytes | str) -> None:
    """Writes a file atomically: it holds either its old content or all of the new content.

    The content goes into a temporary file in the same folder, is flushed to the disk, and takes
    the place of `path` in one step. A crash at any moment leaves no half-written `path`.

    content: bytes, or text, which is encoded as UTF-8.

    Raises OSError if the folder is not writable.
    """
    path = Path(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    # A random name, so that two writers of the same path do not share a temporary file. It is
    # in the same folder because a rename is atomic within one file system only.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:  # "x": fail rather than overwrite
            file.write(data)
            # Without fsync the rename can reach the disk before the content does.
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:  # KeyboardInterrupt too: no temporary file is left behind
        temporary.unlink(missing_ok=True)
        raise


def refuse_pointer(path: str | Path) -> None:
    """Raises UserError if the file is a Git LFS pointer and not the data that it points to."""
    # A clone without git lfs contains small text files in place of the data. By specification
    # each of them starts with this line.
    with open(path, "rb") as file:
        if file.read(64).startswith(b"version https://git-lfs"):
            raise UserError(f"{path}: a Git LFS pointer, not the data. Run git lfs pull.")


def try_lock(file: IO) -> bool:
    """Locks an open file for this process. Returns False if another process holds the lock.

    The lock lasts until the file is closed or the process ends, however it ends.

    Raises UserError on a platform without POSIX locks.
    """
    # Imported here because Windows does not have this module. Trained policies run there too,
    # but training and conversion need the lock.
    try:
        import fcntl
    except ModuleNotFoundError:
        raise UserError(
            f"{file.name} cannot be locked: this platform has no POSIX file locks (fcntl). "
            "Train and convert on Linux or macOS."
        ) from None
    try:
        # LOCK_NB: raise at once instead of waiting for the other process.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
