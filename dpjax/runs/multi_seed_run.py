"""Several trainings side by side in one program (config.train.seeds), as if they were one."""

from collections.abc import Callable, Sequence
import logging
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dpjax.config.dataset import Data
from dpjax.core.errors import UserError
from dpjax.core.spec import Spec
from dpjax.core.types import Array
from dpjax.runs import directory
from dpjax.runs.progress import Clock
from dpjax.runs.training_run import TrainingRun
from dpjax.training import checkpoint, multi_seed
from dpjax.training.parallel import Strategy
from dpjax.training.signals import Signals
from dpjax.training.state import TrainState

log = logging.getLogger("dpjax")


class MultiSeedRun:
    """Trainings that differ in their seed: the interface of `TrainingRun`, for all of them.

    Each has its run folder <folder>/seed_<n>, and in it what it would write by itself. States are
    those of all trainings, stacked along a leading axis [n]; scores are lists of n.
    """

    def __init__(
        self,
        config: ConfigDict,
        folder: Path,
        spec: Spec,
        strategy: Strategy,
        signals: Signals,
    ):
        """config.train.seeds trainings, of the seeds config.seed, config.seed + 1, …"""
        # The folder holds runs, and is not one itself.
        if (folder / "config.json").exists():
            raise UserError(
                f"--workdir {folder} is a run: config.train.seeds={config.train.seeds} makes a "
                "folder of runs, give another."
            )
        self.folder = folder
        self.signals = signals
        self.seed = list(range(config.seed, config.seed + config.train.seeds))
        self._runs = []
        # The config of each is that of a training by itself, so that it can be resumed alone.
        for number, seed in enumerate(self.seed):
            single = config.copy_and_resolve_references()
            with single.unlocked():
                single.seed = seed
                single.train.seeds = 1
            run_folder = folder / f"seed_{seed}"
            self._runs.append(TrainingRun(single, run_folder, spec, strategy, signals, number))
        self.step_key = multi_seed.stack([run.step_key for run in self._runs])

    def claim(self, data: Data) -> None:
        """Claims the folders of all runs, or none of them."""
        for run in self._runs:
            run.claim(data)

    def has_checkpoints(self) -> bool:
        """Whether the runs resume, and their initial weights are not needed."""
        return self._runs[0].has_checkpoints()

    def restore(self, like: TrainState, num_devices: int) -> tuple[TrainState | None, dict]:
        """The states of the newest step that all runs have, stacked; (None, {}) for new runs.

        A kill between two of their saves leaves some runs a save behind. The others go back to it.
        """
        # The newest checkpoint of each run by itself.
        folders = [run.folder for run in self._runs]
        restored = [directory.resume(folder, like, num_devices) for folder in folders]
        steps = [None if state is None else int(state.step) for state, _ in restored]
        if None in steps:  # a new run, or killed before the first save of some
            if set(steps) != {None}:
                log.warning("%s has no checkpoint yet: all start anew", folders[steps.index(None)])
            return None, {}
        # They differ where a kill came between two saves: all restore the same step instead.
        if len(set(steps)) > 1:
            step = newest_shared_step(folders, steps)
            restored = [directory.resume(folder, like, num_devices, step) for folder in folders]
        return multi_seed.stack([state for state, _ in restored]), restored[0][1]

    def create(self, initial_state: Callable[[Array], TrainState]) -> TrainState:
        """The states before the first step, stacked."""
        return multi_seed.stack([run.create(initial_state) for run in self._runs])

    def vectorize(self, step: Callable, gather: Callable) -> tuple[Callable, Callable]:
        """(step, gather) for the stacked states and inputs of all trainings."""
        return multi_seed.side_by_side(step, gather)

    def open(self, clock: Clock) -> Clock:
        """Starts to write metrics and checkpoints of all runs."""
        for run in self._runs:
            clock = run.open(clock)
        return clock

    def log(self, window: list[tuple], clock: Clock) -> float:
        """Writes each training's averages over a window of calls; the mean loss of all."""
        # One bar shows all trainings, so it gets one number.
        losses = [run.log(window, clock) for run in self._runs]
        return sum(losses) / len(losses)

    def evaluate(self, state: Any, clock: Clock, before: int) -> list[float | None]:
        """The score of each training at this step, None where it has none."""
        return [run.evaluate(state, clock, before) for run in self._runs]

    def save(
        self,
        state: Any,
        clock: Clock,
        score: list[float | None] | None,
        *,
        due: bool,
        unevaluated: bool = False,
    ) -> None:
        """Writes a checkpoint of each training for which it is due, or that has a score."""
        # Without scores a checkpoint is written where it is due.
        for run, one in zip(self._runs, score or [None] * len(self._runs)):
            run.save(state, clock, one, due=due, unevaluated=unevaluated)

    def close(self) -> None:
        """Finishes the writing, and gives the folders back."""
        for run in self._runs:
            run.close()


def newest_shared_step(folders: Sequence[Path], steps: Sequence[int]) -> int:
    """The newest step of which all folders have a checkpoint. steps: the newest of each."""
    shared = set.intersection(*(set(checkpoint.steps(folder)) for folder in folders))
    if not shared:
        raise UserError(
            f"{folders[0].parent}: its runs are at steps {', '.join(map(str, steps))} and have "
            "none in common: continue those behind by themselves (config.seed, --workdir), or "
            "start anew."
        )
    return max(shared)
