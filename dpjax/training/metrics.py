"""Metrics: one JSON line an entry, always; TensorBoard beside it."""

import json
import os
from pathlib import Path

import numpy as np


def read(path: Path) -> list[dict]:
    """The entries of a metrics file; a last line cut off by a kill is left out."""
    entries = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            entries.append(json.loads(text))
        except json.JSONDecodeError:
            continue  # only the line in flight can be broken, and its step is done again
    return entries


def series(entries: list[dict], key: str, at: str = "step") -> tuple[list, list]:
    """(x, y) of one metric over the entries that have it; `at` names x."""
    found = [(entry[at], entry[key]) for entry in entries if key in entry and at in entry]
    return [x for x, _ in found], [y for _, y in found]


class Metrics:
    """The writer of one run's metrics.jsonl and tensorboard/.

    first_step: entries after it are from a run that was killed before it saved them;
    they are taken out (`removed` says how many), since those steps are done again.
    """

    def __init__(self, run_dir: Path, first_step: int):
        from tensorboardX import SummaryWriter  # 0.5 s, and only training needs it

        self._path = run_dir / "metrics.jsonl"
        entries = read(self._path)
        kept = [entry for entry in entries if entry["step"] <= first_step]
        self.removed = len(entries) - len(kept)
        self.seconds = max([entry.get("seconds", 0.0) for entry in kept], default=0.0)
        temporary = self._path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(entry) + "\n" for entry in kept))
        os.replace(temporary, self._path)
        self._file = self._path.open("a")
        self._board = SummaryWriter(str(run_dir / "tensorboard"), purge_step=first_step + 1)

    def write(self, step: int, values: dict) -> None:
        """values: {name: a number, or a list of numbers}."""
        values = {key: _plain(value) for key, value in values.items()}
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for key, value in values.items():
            if isinstance(value, (int, float)):
                self._board.add_scalar(key, value, step)

    def close(self) -> None:
        self._file.close()
        self._board.close()


def _plain(value):
    value = np.asarray(value).tolist()
    return float(f"{value:.6g}") if isinstance(value, float) else value
