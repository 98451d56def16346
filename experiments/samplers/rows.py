"""The rows: a run, and how it is asked for a plan."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from dpjax.core.errors import UserError, choices
from dpjax.evaluate import sampler_label
from dpjax.runs import run as run_lib
from dpjax.runs.config_file import read_config

OWN = (  # of the main run: sampler, steps, and what a warm start skips of them
    *(("ddpm", steps, 0.0) for steps in (100, 20, 10, 5)),
    *(("ddim", steps, 0.0) for steps in (10, 5, 4, 3, 2)),
    *(("dpm_solver", steps, 0.0) for steps in (10, 5, 4, 3)),
    *(("heun", steps, 0.0) for steps in (5, 2)),
    ("ddpm", 100, 0.8),
    *(("ddim", 10, share) for share in (0.5, 0.7)),
    *(("dpm_solver", 10, share) for share in (0.5, 0.6, 0.7)),
)
OTHERS = {  # of a run that was trained otherwise, by its method
    "flow": (
        *(("euler", steps) for steps in (1, 2, 3, 4, 5, 10)),
        *(("heun", steps) for steps in (2, 4, 5, 10)),  # one step of it is Euler's
    ),
    "meanflow": tuple(("euler", steps) for steps in (1, 2, 4)),
}


class Row(NamedTuple):
    """run: its folder. method: of another run, "" of the main one."""

    run: Path
    sampler: str
    steps: int
    warm_start: float = 0.0
    method: str = ""

    @property
    def kind(self) -> str:
        """What it shares with rows of other steps: ddim, flow-euler, meanflow."""
        if self.method == "meanflow":
            return self.method  # Euler's step is the only one it has
        return f"{self.method}-{self.sampler}" if self.method else self.sampler

    @property
    def name(self) -> str:
        return sampler_label(self.kind, self.steps, self.warm_start)


def of_main(run: Path) -> list[Row]:
    """The rows of the run that all are compared with; DDPM-100, the reference, is the first."""
    return [Row(run, *asked) for asked in OWN]


def of_other(run: Path) -> list[Row]:
    """The rows of a run that was trained otherwise."""
    config, _ = read_config(run)
    method = "meanflow" if config.method == "meanflow" else config.schedule.name
    if method not in OTHERS:
        raise UserError(
            f"--others {run}: trained by config.schedule.name={method!r}, which is not a method "
            f"with rows of its own; {choices(method, OTHERS)}."
        )
    return [Row(run, *asked, method=method) for asked in OTHERS[method]]


def check_names(rows: Iterable[Row]) -> None:
    """Refuses two rows of one name: rows of another run are named after its method."""
    runs = {}
    for row in rows:
        if runs.setdefault(row.name, row.run) != row.run:
            raise UserError(
                f"--others: {runs[row.name]} and {row.run} are both trained by {row.method}: "
                "expected one run of a method."
            )


def load(rows: list[Row]) -> dict[Row, run_lib.Run]:
    """The runs as the rows ask for them; refused unless all observe and predict alike."""
    asked = ("sampler", "steps", "warm_start")
    runs = {row: run_lib.load(row.run, **{key: getattr(row, key) for key in asked}) for row in rows}
    alike = lambda run: (run.config.task, run.config.horizon.to_dict(), run.spec.observations)
    for row, run in runs.items():
        if alike(run) != alike(runs[rows[0]]):
            raise UserError(
                f"--others {row.run}: expected the task, horizons and observations of "
                f"{rows[0].run}, {alike(runs[rows[0]])}, got {alike(run)}."
            )
    return runs
