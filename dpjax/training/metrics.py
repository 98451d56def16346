"""Metrics: one JSON line an entry, always; TensorBoard beside it."""

import json
import logging
import math
import os
from pathlib import Path
import time

import numpy as np

from dpjax.core.errors import UserError

log = logging.getLogger("dpjax")


def read(path: Path) -> list[dict]:
    """The entries of a metrics file; a last line cut off by a kill is left out."""
    entries = []
    text = path.read_text(errors="replace") if path.exists() else ""
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue  # only the line in flight can be broken, and its step is done again
        if isinstance(entry, dict) and "step" in entry:
            entries.append(entry)
    return entries


def series(entries: list[dict], key: str, at: str = "step") -> tuple[list, list]:
    """(x, y) of one metric over the entries that have it; `at` names x."""
    found = [(entry[at], entry[key]) for entry in entries if key in entry and at in entry]
    return [x for x, _ in found], [y for _, y in found]


def refuse_non_finite(sums: dict, first: int) -> None:
    """Stops the run where a loss or a gradient is not a number; nothing is saved."""
    bad = np.argwhere(~(np.isfinite(sums["loss"]) & np.isfinite(sums["grad_norm"])))
    if len(bad):
        at = tuple(bad[0])  # (step,), of several trainings (step, number)
        of = f" of training {at[1]}" if len(at) > 1 else ""
        raise UserError(
            f"step {first + at[0] + 1}{of}: the loss is {sums['loss'][at]} and the gradient's "
            f"norm {sums['grad_norm'][at]}; stopped, the last good checkpoint is kept. "
            "Lower config.optim.lr, or look for outliers in the data."
        )


def averages(window: list, number: int | None = None) -> dict:
    """Means of the metrics over the calls since the last entry, and the speed.

    window: (metrics, steps, seconds, of them waited for input) a call. The speed leaves
    out the first call, which has no time (None): most of it was compilation.
    number: of the training that is meant, where the metrics are those of several, [n, …].
    """
    of = (slice(None),) if number is None else (slice(None), number)
    join = lambda key: float(np.concatenate([sums[key][of] for sums, *_ in window]).mean())
    values = {key: join(key) for key in window[0][0]}
    timed = [times for _, *times in window if times[1] is not None]
    if timed:
        steps, seconds, waited = map(sum, zip(*timed))
        values.update(steps_per_second=steps / seconds, input_wait=waited / seconds)
    return values


class Metrics:
    """The writer of one run's metrics.jsonl and tensorboard/.

    first_step: entries after it are from a run that was killed before it saved them;
    they are taken out (`removed` says how many), since those steps are done again.
    A disk that fails later is no reason to stop: it is said once.
    """

    def __init__(self, run_dir: Path, first_step: int):
        self._path = run_dir / "metrics.jsonl"
        entries = read(self._path)
        kept = [entry for entry in entries if entry["step"] <= first_step]
        self.removed = len(entries) - len(kept)
        self.seconds = max([entry.get("seconds", 0.0) for entry in kept], default=0.0)
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(entry) + "\n" for entry in kept))
        os.replace(temporary, self._path)
        self._file = self._path.open("a")
        self._board = _Board(run_dir / "tensorboard", first_step)
        self._failed = False

    def write(self, step: int, values: dict) -> None:
        """values: {name: a number, or a list of numbers}; what is not finite becomes null."""
        values = {key: _plain(value) for key, value in values.items()}
        try:
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            self._file.flush()
            self._board.write(step, values)
        except OSError as error:
            self._say(error)

    def close(self) -> None:
        """Closes both files."""
        for file in (self._file, self._board):
            try:
                file.close()
            except OSError as error:
                self._say(error)

    def _say(self, error):
        if not self._failed:
            log.warning("metrics are not written to %s: %s", self._path, error)
        self._failed = True


class _Board:
    """TensorBoard's file of events, written at once.

    tensorboardX's own writer hands them to a thread through a queue: once the disk is
    full the thread is gone and the queue blocks for ever.
    """

    def __init__(self, directory: Path, first_step: int):
        from tensorboardX import summary  # 0.5 s, and only training needs it
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        directory.mkdir(exist_ok=True)
        self._event, self._scalar = Event, summary.scalar
        # The name ends in the second; two starts in one second need two files.
        self._writer = EventsWriter(str(directory / "events"), f".{os.getpid()}")
        start = SessionLog(status=SessionLog.START)  # hides what an earlier run wrote after it
        self._writer.write_event(Event(step=first_step + 1, session_log=start))
        self._writer.flush()

    def write(self, step, values):
        for key, value in values.items():
            if isinstance(value, (int, float)):
                entry = self._scalar(key, value)
                event = self._event(wall_time=time.time(), step=step, summary=entry)
                self._writer.write_event(event)
        self._writer.flush()

    def close(self):
        self._writer.close()


def _plain(value):
    """Numbers as JSON has them, six digits."""
    value = np.asarray(value).tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None
