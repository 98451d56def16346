"""The lock of a run folder: one process at a time trains there."""

import os
from pathlib import Path
import time
from typing import IO

from dpjax.core import files
from dpjax.core.errors import UserError
from dpjax.training.checkpoint.layout import PathLike

# Kept open: a lock lasts until its file is closed, by the caller or with the process.
_locks: list[IO] = []


def lock(run_dir: PathLike) -> IO:
    """Locks the run for this process; returns a file that holds the lock until it is closed.

    Raises a UserError that names the other process if it is locked already.
    """
    path = Path(run_dir) / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    # Opened without truncating: the file names its holder until the lock is ours.
    file = open(path, "a+", encoding="utf-8")
    if not files.try_lock(file):
        # The file says who holds it, unless that process was killed while writing.
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise UserError(
            f"{run_dir} is locked by {holder}: wait for it, stop it, or choose another workdir."
        )
    # The lock is ours: the next process that asks will read this line.
    file.truncate(0)
    file.write(f"pid {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
    file.flush()
    _locks.append(file)
    return file
