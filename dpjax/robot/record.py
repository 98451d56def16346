"""From attempts on the robot to demonstrations in RLDS, ready to train on.

    session = record.Session("data/rollouts")
    session.add(attempt)                       # after each episode; written to disk at once
    session.finish()                           # data/rollouts/1.0.0, an RLDS data set

Trained together with the first demonstrations (`config.data.dir=data/demos,data/rollouts`), a
person's corrections teach the policy what it did not know (DAgger, Ross et al. 2011).
"""

from collections.abc import Iterator, Sequence
import io
import json
import logging
from pathlib import Path
import shutil
from typing import Any

import numpy as np

from dpjax.core import files
from dpjax.core.errors import UserError
from dpjax.data import rlds
from dpjax.robot.base import Command
from dpjax.robot.drive import Attempt
from dpjax.robot.loop import Step

# Columns beside the observations. They are stored under steps, so no policy observes them.
EXTRA = ("planned_action", "time", "is_intervention", "chunk")

log = logging.getLogger("dpjax")


def corrections(steps: Sequence[Step]) -> list[list[Step]]:
    """The runs of consecutive steps in which a person acted."""
    parts: list[list[Step]] = []
    was_intervention = False
    for step in steps:
        if step.is_intervention:
            if not was_intervention:
                parts.append([])
            parts[-1].append(step)
        was_intervention = step.is_intervention
    return parts


def episode(steps: Sequence[Step], action: str = "action") -> dict[str, np.ndarray]:
    """Steps as columns {name: [T, ...]}: what was observed, what was sent, and who sent it."""
    columns = {name: np.stack([step.columns[name] for step in steps]) for name in steps[0].columns}
    # Times within the episode: seconds since 1970 do not fit into float32.
    times = np.array([[step.time - steps[0].time] for step in steps])
    extra = {
        action: np.stack([step.action for step in steps]),
        "planned_action": np.stack([np.nan_to_num(step.planned) for step in steps]),
        "time": times,
        "is_intervention": np.array([[step.is_intervention] for step in steps]),
        "chunk": np.array([[step.chunk] for step in steps]),
    }
    return {**columns, **{name: x.astype(np.float32) for name, x in extra.items()}}


class Session:
    """The recordings of one session. Episodes are on disk as soon as they are added."""

    def __init__(self, out: str | Path, *, action: str = "action", whole: bool = True):
        """out: the RLDS folder to make; it must not exist.

        action: the name of the action's column in the demonstrations.
        whole: record every attempt from its beginning to its end, with a column that tells which
            steps were a person's. Otherwise only a person's corrections are recorded, each as an
            episode.

        An unfinished session of the same name, after a crash, is continued: its episodes are
        kept.

        Raises UserError if the folder exists, or if another process records into it.
        """
        self._out = Path(out)
        self._folder = self._out.with_name(f"{self._out.name}.recording")
        self._action = action
        self._whole = whole
        if self._out.exists():
            raise UserError(
                f"{self._out} exists already: give another folder, or remove it.", argument="out"
            )
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock = open(self._folder / "lock", "a", encoding="utf-8")  # noqa: SIM115
        if not files.try_lock(self._lock):
            raise UserError(f"{self._folder}: another process records there.", argument="out")
        self.count = len(list(self._folder.glob("*.json")))
        if self.count:
            log.warning("%s: %d episodes of an unfinished session are kept", out, self.count)
        self.dropped = 0

    def add(self, attempt: Attempt) -> int:
        """Records an attempt; returns the number of episodes that it gave.

        An attempt that a person dropped, or in which nothing was sent, is only counted.
        """
        if attempt.ended_by == Command.DROP.value or not attempt.steps:
            self.dropped += 1
            return 0
        # The whole attempt, or what a person corrected in it.
        parts = [list(attempt.steps)] if self._whole else corrections(attempt.steps)
        for steps in parts:
            content = io.BytesIO()
            np.savez(content, **episode(steps, self._action))  # type: ignore[arg-type]
            files.write_atomically(self._file("npz", self.count), content.getvalue())
            # The metadata is written last: an episode without it does not count.
            about = _metadata(attempt, steps)
            files.write_atomically(self._file("json", self.count), json.dumps(about))
            self.count += 1
        return len(parts)

    def finish(self, description: str = "Recorded on a robot by dpjax") -> Path | None:
        """Writes the RLDS data set; returns its version folder, or None if nothing was recorded."""
        if self.dropped:
            log.warning("%s: %d attempts were dropped, not recorded", self._out, self.dropped)
        if not self.count:
            self._remove()
            return None
        # All columns but the action and those about the loop are what was observed.
        first = next(self._episodes())
        observations = [name for name in first if name not in (self._action, *EXTRA)]
        path = rlds.write(
            self._out,
            self._episodes(),
            name="robot",
            observations=observations,
            metadata=[json.loads(self._file("json", i).read_text()) for i in range(self.count)],
            description=f"{description}: {self.count} episodes",
        )
        self._remove()
        return path

    def _file(self, kind: str, number: int) -> Path:
        """The file of an episode: npz for its columns, json for its metadata."""
        return self._folder / f"{number:05d}.{kind}"

    def _remove(self) -> None:
        """Removes what the session kept beside the data set."""
        self._lock.close()
        shutil.rmtree(self._folder)

    def _episodes(self) -> Iterator[dict[str, np.ndarray]]:
        """The recorded episodes, one at a time."""
        for number in range(self.count):
            with np.load(self._file("npz", number), allow_pickle=False) as content:
                yield dict(content)


def _metadata(attempt: Attempt, steps: Sequence[Step]) -> dict[str, Any]:
    """What a data set keeps of an episode beside its steps."""
    return {
        "success": float(attempt.ended_by == Command.SUCCESS.value),
        "ended_by": attempt.ended_by,
        "reason": attempt.reason,
        "held": float(attempt.report["held"]),
        "late": float(attempt.report["late"]),
        "interventions": float(sum(step.is_intervention for step in steps)),
    }
