"""A folder that a command makes: complete under its name, or not there at all."""

from collections.abc import Iterator
import contextlib
import os
from pathlib import Path
import shutil

from dpjax.core.errors import UserError


@contextlib.contextmanager
def new_folder(path: Path, option: str) -> Iterator[Path]:
    """A temporary folder that gets the name `path` when the block ends without an error.

    option: the command-line option that `path` comes from, for errors. Raises UserError if
    `path` exists or cannot be written.
    """
    if path.exists():
        raise UserError(f"{option} {path} exists: give a new folder; nothing is overwritten.")
    # Beside `path`, so that the renaming stays on one file system and is one step.
    temporary = path.with_name(f".{path.name}.incomplete-{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        os.rename(temporary, path)
    except OSError as error:
        raise UserError(f"{option} {path}: {error.strerror or error}.") from error
    finally:
        # After the renaming there is nothing left to remove.
        shutil.rmtree(temporary, ignore_errors=True)
