"""The rows of the table: a run, and how action chunks are sampled from it."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from dpjax.core.errors import UserError, choices
from dpjax.evaluate import sampler_label
from dpjax.runs import run as run_lib
from dpjax.runs.config_file import read_config

MAIN = (  # of the main run: sampler, steps, and the share of them that a warm start skips
    *(("ddpm", steps, 0.0) for steps in (100, 20, 10, 5)),
    *(("ddim", steps, 0.0) for steps in (10, 5, 4, 3, 2)),
    *(("dpm_solver", steps, 0.0) for steps in (10, 5, 4, 3)),
    *(("heun", steps, 0.0) for steps in (5, 2)),
    ("ddpm", 100, 0.8),
    *(("ddim", 10, share) for share in (0.5, 0.7)),
    *(("dpm_solver", 10, share) for share in (0.5, 0.6, 0.7)),
)
OTHERS = {  # of a run trained by another method: sampler, steps
    "flow": (
        *(("euler", steps) for steps in (1, 2, 3, 4, 5, 10)),
        *(("heun", steps) for steps in (2, 4, 5, 10)),  # one step of Heun's is Euler's
    ),
    "meanflow": tuple(("euler", steps) for steps in (1, 2, 4)),
}


class Row(NamedTuple):
    """One row. run: its folder. method: that of another run, "" for the main one."""

    run: Path
    sampler: str
    steps: int
    warm_start: float = 0.0
    method: str = ""

    @property
    def kind(self) -> str:
        """What rows of different steps share: ddim, flow-euler, meanflow."""
        if self.method == "meanflow":
            return self.method  # Euler's is its only sampler
        return f"{self.method}-{self.sampler}" if self.method else self.sampler

    @property
    def name(self) -> str:
        """The row's name, unique in the table: ddim-10-warm-0.5."""
        return sampler_label(self.kind, self.steps, self.warm_start)


def of_main(run: Path) -> list[Row]:
    """The rows of the main run; the first one, DDPM-100, is the reference."""
    return [Row(run, *settings) for settings in MAIN]


def of_other(run: Path) -> list[Row]:
    """The rows of a run that was trained by another method."""
    config, _ = read_config(run)
    method = "meanflow" if config.method == "meanflow" else config.schedule.name
    if method not in OTHERS:
        raise UserError(
            f"--others {run}: trained by config.schedule.name={method!r}, for which there are no "
            f"rows; {choices(method, OTHERS)}."
        )
    return [Row(run, *settings, method=method) for settings in OTHERS[method]]


def check_names(rows: Iterable[Row]) -> None:
    """Refuses two rows of one name: rows of another run are named after its method."""
    runs = {}
    for row in rows:
        if runs.setdefault(row.name, row.run) != row.run:
            raise UserError(
                f"--others: {runs[row.name]} and {row.run} are both trained by {row.method}: "
                "expected one run per method."
            )


def load(rows: list[Row]) -> dict[Row, run_lib.Run]:
    """Loads a run for each row; refuses runs that do not observe and predict the same."""
    runs = {
        row: run_lib.load(row.run, sampler=row.sampler, steps=row.steps, warm_start=row.warm_start)
        for row in rows
    }

    def interface(run):
        return run.config.task, run.config.horizon.to_dict(), run.spec.observations

    expected = interface(runs[rows[0]])
    for row, run in runs.items():
        if interface(run) != expected:
            raise UserError(
                f"--others {row.run}: expected the task, horizons and observations of "
                f"{rows[0].run}, {expected}, got {interface(run)}."
            )
    return runs
