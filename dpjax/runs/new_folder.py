"""Creates a folder in one step: it is complete, or it does not exist."""

from collections.abc import Iterator
import contextlib
import os
from pathlib import Path
import shutil

from dpjax.core.errors import UserError


@contextlib.contextmanager
def new_folder(path: Path, option: str) -> Iterator[Path]:
    """A context with a temporary folder, which is renamed to `path` at the end of the block.

    After an error inside the block the temporary folder is removed instead. Raises UserError if
    `path` exists or cannot be written. option: the command-line option of `path`, for errors.
    """
    if path.exists():
        raise UserError(f"{option} {path} exists: give a new folder; nothing is overwritten.")
    # In the same parent folder, hence on the same file system, where renaming is atomic.
    temporary = path.with_name(f".{path.name}.incomplete-{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        yield temporary  # the caller writes its files
        os.rename(temporary, path)
    except OSError as error:
        raise UserError(f"{option} {path}: {error.strerror or error}.") from error
    finally:
        # After a successful renaming there is nothing to remove.
        shutil.rmtree(temporary, ignore_errors=True)
