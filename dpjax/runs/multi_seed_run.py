"""Several trainings side by side in one program (config.train.seeds)."""

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
    """Trainings that differ in their seed only, with the interface of `TrainingRun`.

    Each training has the run folder <folder>/seed_<n>, with the same files as a single training.
    A state here is the states of all n trainings, stacked along a leading axis [n]. A score is a
    list of n scores.
    """

    def __init__(
        self,
        config: ConfigDict,
        folder: Path,
        spec: Spec,
        strategy: Strategy,
        signals: Signals,
    ):
        """Prepares config.train.seeds trainings, with the seeds config.seed, config.seed + 1, …"""
        # The folder contains run folders. It must not be a run folder itself.
        if (folder / "config.json").exists():
            raise UserError(
                f"--workdir {folder} is a run: config.train.seeds={config.train.seeds} makes a "
                "folder of runs, give another."
            )
        self.folder = folder
        self.signals = signals
        self.seed = list(range(config.seed, config.seed + config.train.seeds))
        self._runs = []
        # Each training gets the config of a single training, so that it can also be resumed alone.
        for number, seed in enumerate(self.seed):
            single = config.copy_and_resolve_references()
            with single.unlocked():
                single.seed = seed
                single.train.seeds = 1
            run_folder = folder / f"seed_{seed}"
            self._runs.append(TrainingRun(single, run_folder, spec, strategy, signals, number))
        # The random keys of all trainings, [n].
        self.step_key = multi_seed.stack([run.step_key for run in self._runs])

    def claim(self, data: Data) -> None:
        """Claims the folders of all runs."""
        # A refused folder raises here, before any of the runs is trained.
        for run in self._runs:
            run.claim(data)

    def has_checkpoints(self) -> bool:
        """Whether the runs are resumed, so that no initial weights are needed."""
        # The first run is the first one to be saved.
        return self._runs[0].has_checkpoints()

    def restore(self, like: TrainState, num_devices: int) -> tuple[TrainState | None, dict]:
        """(stacked states, metadata) of the newest step that all runs have; (None, {}) if none.

        A kill between the saves of two runs leaves some runs one save behind. The others then go
        back to the same step.
        """
        # 1. The newest checkpoint of each run.
        folders = [run.folder for run in self._runs]
        restored = [directory.resume(folder, like, num_devices) for folder in folders]
        steps = [None if state is None else int(state.step) for state, _ in restored]
        # 2. All runs are new, or a kill came before the first save of some.
        if None in steps:
            if set(steps) != {None}:
                log.warning("%s has no checkpoint yet: all start anew", folders[steps.index(None)])
            return None, {}
        # 3. The steps differ after a kill between two saves: all restore one that they share.
        if len(set(steps)) > 1:
            step = newest_shared_step(folders, steps)
            restored = [directory.resume(folder, like, num_devices, step) for folder in folders]
        return multi_seed.stack([state for state, _ in restored]), restored[0][1]

    def create(self, initial_state: Callable[[Array], TrainState]) -> TrainState:
        """The states before the first step, stacked."""
        return multi_seed.stack([run.create(initial_state) for run in self._runs])

    def vectorize(self, step: Callable, gather: Callable) -> tuple[Callable, Callable]:
        """(step, gather) for stacked states and inputs, from those for a single training."""
        return multi_seed.side_by_side(step, gather)

    def open(self, clock: Clock) -> Clock:
        """Opens the metrics and checkpoints of all runs; see `TrainingRun.open`."""
        # All runs have trained for the same time, so one clock serves them all.
        for run in self._runs:
            clock = run.open(clock)
        return clock

    def log(self, window: list[tuple], clock: Clock) -> float:
        """Writes the metrics of each training; returns the mean of their losses."""
        # The mean is for the progress bar, which shows one number.
        losses = [run.log(window, clock) for run in self._runs]
        return sum(losses) / len(losses)

    def evaluate(self, state: Any, clock: Clock, before: int) -> list[float | None]:
        """The score of each training at this step; None for a training without one."""
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
        """Writes a checkpoint of each training if one is due, or if the training has a score."""
        # score is None after an evaluation that a signal ended.
        for run, one in zip(self._runs, score or [None] * len(self._runs)):
            run.save(state, clock, one, due=due, unevaluated=unevaluated)

    def close(self) -> None:
        """Finishes writing, and unlocks the folders."""
        for run in self._runs:
            run.close()


def newest_shared_step(folders: Sequence[Path], steps: Sequence[int]) -> int:
    """The newest step of which all run folders have a checkpoint.

    steps: the newest step of each run, for the error.
    """
    # A run keeps its last checkpoint and the best ones only, so perhaps no step is shared.
    shared = set.intersection(*(set(checkpoint.steps(folder)) for folder in folders))
    if not shared:
        raise UserError(
            f"{folders[0].parent}: its runs are at steps {', '.join(map(str, steps))} and have "
            "none in common: continue those behind by themselves (config.seed, --workdir), or "
            "start anew."
        )
    return max(shared)
