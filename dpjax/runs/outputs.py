"""The folders of a command: where it reads a policy from, and where it writes its results."""

import logging
from pathlib import Path

from dpjax.runs import shipped

log = logging.getLogger("dpjax")


def shipped_folder(run: str) -> Path | None:
    """The folder of the shipped policy `run`; None if `run` is a run folder or unknown."""
    # The user's own folder has precedence over a shipped policy of the same name.
    return None if Path(run).exists() else shipped.folder(run)


def output_folder(run: str, out: str | None) -> Path:
    """The folder that a command writes to: `out` if it is not empty, otherwise the run folder.

    A shipped policy has no run folder. The current folder takes its place, with a warning. The
    folder is created if it does not exist.
    """
    if out:
        folder = Path(out)
    elif shipped_folder(run) is not None:
        # Not into the installed package, which may be read-only.
        folder = Path(".")
        log.warning("%s comes with dpjax: writing into the current folder (or give --out)", run)
    else:
        folder = Path(run)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
