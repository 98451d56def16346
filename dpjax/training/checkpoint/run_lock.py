"""The lock of a run folder: only one process at a time may train there."""

import os
from pathlib import Path
import time
from typing import IO

from dpjax.core import files
from dpjax.core.errors import UserError
from dpjax.training.checkpoint.layout import PathLike

# Keeps the files open: a lock is released when its file is closed or its process ends.
_locks: list[IO] = []


def lock(run_dir: PathLike) -> IO:
    """Locks the run for this process; returns a file that holds the lock until it is closed.

    Raises a UserError that names the other process if it is locked already.
    """
    path = Path(run_dir) / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    # "a+" does not empty the file, which names the process that has the lock.
    file = open(path, "a+", encoding="utf-8")
    if not files.try_lock(file):
        # That process may have been killed before it wrote its name.
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise UserError(
            f"{run_dir} is locked by {holder}: wait for it, stop it, or choose another workdir."
        )
    # This process has the lock; another one that tries will show this line in its error.
    file.truncate(0)
    file.write(f"pid {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
    file.flush()
    # A caller that drops the file must not lose the lock.
    _locks.append(file)
    return file
