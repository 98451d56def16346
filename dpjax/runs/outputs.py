"""Where commands read a policy from, and where they write what they make of it."""

import logging
from pathlib import Path

from dpjax.runs import shipped

log = logging.getLogger("dpjax")


def shipped_folder(run: str) -> Path | None:
    """The folder of the policy `run` that comes with dpjax; None if `run` is a folder or unknown.

    A folder of the user's goes before a policy of the same name.
    """
    return None if Path(run).exists() else shipped.folder(run)


def output_folder(run: str, out: str | None) -> Path:
    """The folder that a command writes to: `out` if it is given, otherwise the run folder.

    A policy that comes with dpjax has no run folder: the current folder takes its place, and a
    line of the log says so. The folder is made if it does not exist.
    """
    # The three cases: asked for, a shipped policy, a run folder.
    if out:
        folder = Path(out)
    elif shipped_folder(run) is not None:
        folder = Path(".")
        log.warning("%s comes with dpjax: writing into the current folder (or give --out)", run)
    else:
        folder = Path(run)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
