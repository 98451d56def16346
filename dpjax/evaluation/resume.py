"""Resumes an evaluation that was killed: each episode is on the disk as soon as it has ended.

The file has one JSON line with the settings of the evaluation, then one line per episode. A file
with other settings (another checkpoint, sampler or number of environments) is not used.
"""

from collections.abc import Mapping
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from dpjax.evaluation.rollout import Episode

# What is written of an episode, besides its progress: all that a score needs.
FIELDS = ("seed", "steps", "score", "success", "broken", "out_of_bounds")

log = logging.getLogger("dpjax")


def start(path: Path, settings: Mapping[str, Any]) -> list[Episode]:
    """Returns the ended episodes in the file, without their columns, actions and frames.

    Afterwards the file holds exactly these episodes, and `add` appends to it. settings: as JSON
    gives them back, so with lists in place of tuples.
    """
    # 1. Read the file. A kill may have cut off the last line: only lines with a line break count.
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    episodes = []
    if lines:
        try:
            # The first line holds the settings, the others one episode each.
            if json.loads(lines[0]) == dict(settings):
                episodes = [_parse(line) for line in lines[1:]]
            else:
                log.warning("%s is of other settings: starting over", path)
        except (ValueError, KeyError) as error:  # not JSON, or a field is missing
            log.warning("%s is damaged (%s): starting over", path, error)
    if episodes:
        log.warning("%d episodes are done already (%s)", len(episodes), path)
    # 2. Write the file again, without an unfinished line and without what cannot be used.
    path.write_text(json.dumps(dict(settings)) + "\n")
    for episode in episodes:
        add(path, episode)
    return episodes


def add(path: Path, episode: Episode) -> None:
    """Appends an episode that has ended."""
    values = {name: getattr(episode, name) for name in FIELDS}
    values["progress"] = episode.progress.tolist()
    # Closing the file flushes it: a kill leaves complete lines and at most one unfinished line.
    with path.open("a") as file:
        file.write(json.dumps(values) + "\n")


def _parse(line: bytes) -> Episode:
    """The episode of a line that `add` wrote."""
    # Float32 survives JSON: Python writes a float64 so that it reads back exactly.
    values = json.loads(line)
    fields = {name: values[name] for name in FIELDS}
    return Episode(
        progress=np.array(values["progress"], np.float32),
        # Not in the file: they would take megabytes per episode.
        columns={},
        actions=np.zeros((0, 0), np.float32),
        **fields,
    )
