"""The metrics of a run, in metrics.jsonl (one JSON object per line) and for TensorBoard."""

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
    """The entries of a metrics file; lines that are not valid JSON are left out."""
    # errors="replace": bytes that are not UTF-8 make one line invalid, not the whole file.
    entries = []
    text = path.read_text(errors="replace") if path.exists() else ""
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            # Usually the last line, which a kill cut short; its step is done again.
            continue
        if isinstance(entry, dict) and "step" in entry:
            entries.append(entry)
    return entries


def series(entries: list[dict], key: str, at: str = "step") -> tuple[list, list]:
    """(x, y) of one metric, from the entries that have it; `at` is the key of x."""
    # Not every entry has every metric: an evaluation is less frequent than the loss.
    points = [(entry[at], entry[key]) for entry in entries if key in entry and at in entry]
    return [x for x, _ in points], [y for _, y in points]


def refuse_non_finite(sums: dict[str, np.ndarray], first: int) -> None:
    """Raises a UserError for the first step whose loss or gradient is not finite.

    Args:
        sums: metrics of one call, {name: [steps]}, or [steps, n] for n trainings side by side.
        first: the number of steps done before the call.
    """
    # argwhere returns positions in the order of the first axis, which is time.
    bad = np.argwhere(~(np.isfinite(sums["loss"]) & np.isfinite(sums["grad_norm"])))
    if not len(bad):
        return
    # Steps are counted from 1 in the message.
    at = tuple(bad[0])  # (step,), or (step, number of the training)
    training = f" of training {at[1]}" if len(at) > 1 else ""
    raise UserError(
        f"step {first + at[0] + 1}{training}: the loss is {sums['loss'][at]} and the gradient's "
        f"norm {sums['grad_norm'][at]}; stopped, the last good checkpoint is kept. "
        "Lower the learning rate, or look for outliers in the data.",
        argument="lr",
    )


def averages(window: Sequence[tuple], number: int | None = None) -> dict[str, float]:
    """The mean of each metric over the calls since the last entry, and the speed.

    Args:
        window: for each call (metrics, steps, seconds, seconds of these spent waiting for input).
            The seconds of the first call are None: most of them are compilation.
        number: the training to average over, if the metrics are those of several, [steps, n].
    """
    # Select all steps, or all steps of one training.
    which = (slice(None),) if number is None else (slice(None), number)
    mean = lambda key: float(np.concatenate([sums[key][which] for sums, *_ in window]).mean())
    # The mean over all steps of all calls.
    values = {key: mean(key) for key in window[0][0]}
    timed = [times for _, *times in window if times[1] is not None]
    # The speed, from the calls that were timed.
    if timed:
        steps, seconds, waited = map(sum, zip(*timed))
        values.update(steps_per_second=steps / seconds, input_wait=waited / seconds)
    return values


class Metrics:
    """Writes the metrics.jsonl and tensorboard/ of one run.

    Entries after `first_step` are from a run that was killed before it saved those steps. They are
    removed, since the steps are done again. If writing fails later, training continues and one
    warning is logged.

    removed: the number of entries that were removed.
    seconds: the training time at the newest entry that was kept; 0 if there is none.
    """

    def __init__(self, run_dir: Path, first_step: int):
        self._path = run_dir / "metrics.jsonl"
        # Keep the entries up to the checkpoint from which the run continues.
        entries = read(self._path)
        kept = [entry for entry in entries if entry["step"] <= first_step]
        self.removed = len(entries) - len(kept)
        self.seconds = max([entry.get("seconds", 0.0) for entry in kept], default=0.0)
        files.write_atomically(self._path, "".join(json.dumps(entry) + "\n" for entry in kept))
        # From now on entries are appended and flushed one at a time, so a kill loses at most one.
        self._file = self._path.open("a")
        self._board = _Board(run_dir / "tensorboard", first_step)
        self._failed = False

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Adds an entry {name: a number, or a list of numbers}; non-finite numbers become null."""
        # JSON has no NaN, and `json` cannot write numpy's numbers.
        values = {key: _plain(value) for key, value in values.items()}
        try:
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._file.flush()
            self._board.write(step, values)
        except OSError as error:
            # A full disk, for example: the training is worth more than its metrics.
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
    """Writes TensorBoard's event file, each entry immediately.

    tensorboardX's own SummaryWriter passes entries to a thread through a queue. If the disk is
    full, that thread ends and the queue blocks forever.
    """

    def __init__(self, directory: Path, first_step: int):
        # Imported here, since it takes 0.5 s and only training needs it.
        summary = extras.require("tensorboardX.summary", extra="data")
        writer = extras.require("tensorboardX.event_file_writer", extra="data")
        protos = extras.require("tensorboardX.proto.event_pb2", extra="data")

        directory.mkdir(exist_ok=True)
        self._event = protos.Event
        self._scalar = summary.scalar
        # The name of the file has the time in seconds. With the process id, two runs that start
        # within one second have different files.
        self._writer = writer.EventsWriter(str(directory / "events"), f".{os.getpid()}")
        # A START event makes TensorBoard drop earlier events from its step on: those that a killed
        # run wrote after `first_step`.
        start = protos.SessionLog(status=protos.SessionLog.START)
        self._writer.write_event(self._event(step=first_step + 1, session_log=start))
        self._writer.flush()

    def write(self, step: int, values: dict[str, Any]) -> None:
        for key, value in values.items():
            # Lists and nulls are in metrics.jsonl only.
            if isinstance(value, (int, float)):
                entry = self._scalar(key, value)
                event = self._event(wall_time=time.time(), step=step, summary=entry)
                self._writer.write_event(event)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _plain(value: Any) -> Any:
    """Numbers or lists for JSON: six significant digits, and None for non-finite numbers."""
    # `tolist` turns arrays and scalars of numpy and jax into Python's lists and numbers.
    value = np.asarray(value).tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    # Integers, booleans and text are written as they are.
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None
