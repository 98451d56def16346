"""Metrics of a run: metrics.jsonl, one JSON object per entry, and the same for TensorBoard."""

from collections.abc import Sequence
import json
import logging
import math
import os
from pathlib import Path
import time
from typing import Any

import numpy as np

from dpjax.core import extras, files
from dpjax.core.errors import UserError

log = logging.getLogger("dpjax")


def read(path: Path) -> list[dict]:
    """The entries of a metrics file; a last line that was cut off by a kill is left out."""
    # Bytes that are not text (of a damaged disk) cost a line, not the file.
    entries = []
    text = path.read_text(errors="replace") if path.exists() else ""
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            # Only the line that was being written can be broken, and its step is done again.
            continue
        if isinstance(entry, dict) and "step" in entry:
            entries.append(entry)
    return entries


def series(entries: list[dict], key: str, at: str = "step") -> tuple[list, list]:
    """(x, y) of one metric, from the entries that have it; `at` is the key of x."""
    points = [(entry[at], entry[key]) for entry in entries if key in entry and at in entry]
    return [x for x, _ in points], [y for _, y in points]


def refuse_non_finite(sums: dict[str, np.ndarray], first: int) -> None:
    """Stops the run at the first step whose loss or gradient is not finite; nothing is saved.

    Args:
        sums: metrics of one call, {name: [steps]}, or [steps, n] for n trainings side by side.
        first: the number of steps done before the call.
    """
    # The first bad step in the order of time; argwhere sorts by it.
    bad = np.argwhere(~(np.isfinite(sums["loss"]) & np.isfinite(sums["grad_norm"])))
    if not len(bad):
        return
    at = tuple(bad[0])  # (step,), or (step, number of the training)
    training = f" of training {at[1]}" if len(at) > 1 else ""
    raise UserError(
        f"step {first + at[0] + 1}{training}: the loss is {sums['loss'][at]} and the gradient's "
        f"norm {sums['grad_norm'][at]}; stopped, the last good checkpoint is kept. "
        "Lower the learning rate, or look for outliers in the data.",
        argument="lr",
    )


def averages(window: Sequence[tuple], number: int | None = None) -> dict[str, float]:
    """Means of the metrics over the calls since the last entry, and the speed.

    Args:
        window: per call (metrics, steps, seconds, seconds of them waited for input). The first
            call's seconds are None, since most of them were compilation; it has no speed.
        number: which training is meant, if the metrics are those of several, [steps, n].
    """
    # Metrics of several trainings have an axis more: one column is one training.
    which = (slice(None),) if number is None else (slice(None), number)
    mean = lambda key: float(np.concatenate([sums[key][which] for sums, *_ in window]).mean())
    # Means over all steps, and the speed of the calls that have a time.
    values = {key: mean(key) for key in window[0][0]}
    timed = [times for _, *times in window if times[1] is not None]
    if timed:
        steps, seconds, waited = map(sum, zip(*timed))
        values.update(steps_per_second=steps / seconds, input_wait=waited / seconds)
    return values


class Metrics:
    """Writes the metrics.jsonl and tensorboard/ of one run.

    Entries after `first_step` come from a run that was killed before it saved those steps. They are
    removed (`removed` counts them), since the steps are done again. A disk that fails later does
    not stop the training: a warning is logged once.

    seconds: of the newest entry that was kept; 0 without one.
    """

    def __init__(self, run_dir: Path, first_step: int):
        self._path = run_dir / "metrics.jsonl"
        # What a killed run wrote beyond its last checkpoint goes, the rest stays.
        entries = read(self._path)
        kept = [entry for entry in entries if entry["step"] <= first_step]
        self.removed = len(entries) - len(kept)
        self.seconds = max([entry.get("seconds", 0.0) for entry in kept], default=0.0)
        files.write_atomically(self._path, "".join(json.dumps(entry) + "\n" for entry in kept))
        # Entries are appended and flushed one by one, so that a kill cuts at most one.
        self._file = self._path.open("a")
        self._board = _Board(run_dir / "tensorboard", first_step)
        self._failed = False

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Adds an entry {name: a number, or a list of numbers}; non-finite numbers become null."""
        # JSON knows neither numpy's numbers nor NaN.
        values = {key: _plain(value) for key, value in values.items()}
        try:
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._file.flush()
            self._board.write(step, values)
        except OSError as error:
            self._warn_once(error)

    def close(self) -> None:
        """Closes both files."""
        for file in (self._file, self._board):
            try:
                file.close()
            except OSError as error:
                self._warn_once(error)

    def _warn_once(self, error: OSError) -> None:
        if not self._failed:
            log.warning("metrics are not written to %s: %s", self._path, error)
        self._failed = True


class _Board:
    """TensorBoard's event file; every entry is on disk at once.

    tensorboardX's own writer hands entries to a thread through a queue: once the disk is full the
    thread is gone, and the queue blocks forever.
    """

    def __init__(self, directory: Path, first_step: int):
        # Imported here: it takes 0.5 s, and only training needs it.
        summary = extras.require("tensorboardX.summary", extra="data")
        writer = extras.require("tensorboardX.event_file_writer", extra="data")
        protos = extras.require("tensorboardX.proto.event_pb2", extra="data")

        directory.mkdir(exist_ok=True)
        self._event = protos.Event
        self._scalar = summary.scalar
        # File names end in the second; two starts within one second need two files.
        self._writer = writer.EventsWriter(str(directory / "events"), f".{os.getpid()}")
        # This event hides what an earlier run wrote after `first_step`.
        start = protos.SessionLog(status=protos.SessionLog.START)
        self._writer.write_event(self._event(step=first_step + 1, session_log=start))
        self._writer.flush()

    def write(self, step: int, values: dict[str, Any]) -> None:
        for key, value in values.items():
            # Lists and nulls are in metrics.jsonl alone.
            if isinstance(value, (int, float)):
                entry = self._scalar(key, value)
                event = self._event(wall_time=time.time(), step=step, summary=entry)
                self._writer.write_event(event)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _plain(value: Any) -> Any:
    """Numbers, or lists of them, as JSON has them: six significant digits, null for non-finite."""
    # Arrays and scalars of numpy and jax become Python's numbers.
    value = np.asarray(value).tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None
