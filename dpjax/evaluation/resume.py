"""An evaluation that was killed goes on: each episode is on the disk once it is over.

One JSON line an episode after a first line with what was evaluated. A file of other
settings (another checkpoint, sampler, number of environments) is begun anew.
"""

from collections.abc import Mapping
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from dpjax.evaluation.rollout import Episode

FIELDS = ("seed", "steps", "score", "success", "broken", "out_of_bounds")

log = logging.getLogger("dpjax")


def begin(path: Path, settings: Mapping[str, Any]) -> list[Episode]:
    """The finished episodes of that file, without columns, actions and frames.

    Afterwards the file holds just those, so that `add` can go on with it.
    """
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []  # whole lines only
    found = []
    if lines:
        try:
            if json.loads(lines[0]) == dict(settings):
                found = [_episode(json.loads(line)) for line in lines[1:]]
            else:
                log.warning("%s is of other settings: begun anew", path)
        except (ValueError, KeyError) as error:
            log.warning("%s is damaged (%s): begun anew", path, error)
    if found:
        log.warning("%d episodes are done already (%s)", len(found), path)
    path.write_text(json.dumps(dict(settings)) + "\n")
    for episode in found:
        add(path, episode)
    return found


def add(path: Path, episode: Episode) -> None:
    """Appends a finished episode."""
    row = {name: getattr(episode, name) for name in FIELDS}
    row["progress"] = episode.progress.tolist()
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def _episode(row) -> Episode:
    progress = np.array(row["progress"], np.float32)
    none = np.zeros((0, 0), np.float32)
    fields = {name: row[name] for name in FIELDS}
    return Episode(progress=progress, columns={}, actions=none, **fields)
