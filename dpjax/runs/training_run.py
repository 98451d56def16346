"""A training run: where it is written, what evaluates it, and what it resumes from."""

from collections.abc import Callable
import logging
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from dpjax.config.dataset import Data
from dpjax.core.spec import Spec
from dpjax.core.types import Array
from dpjax.runs import directory, evaluators
from dpjax.runs.progress import Clock
from dpjax.training import checkpoint, metrics, multi_seed
from dpjax.training.parallel import Strategy
from dpjax.training.signals import Signals
from dpjax.training.state import TrainState

log = logging.getLogger("dpjax")


class TrainingRun:
    """One training and its run folder; `MultiSeedRun` has the same interface for several.

    Only the first of several processes claims and opens the run; in the others it evaluates
    nothing and writes nothing.

    folder: the run folder. seed: of weights, batches and noise. signals: what may stop it.
    step_key: the key of all its steps; that of step i is fold_in(step_key, i).
    """

    def __init__(
        self,
        config: ConfigDict,
        folder: Path,
        spec: Spec,
        strategy: Strategy,
        signals: Signals,
        number: int | None = None,
    ):
        """number: which of several trainings side by side this is; None for a single one."""
        # What the training loop reads.
        self.folder = folder
        self.seed = config.seed
        self.signals = signals
        self._init_key, self.step_key = jax.random.split(jax.random.key(config.seed))
        # What this class needs to write and to evaluate.
        self._config = config
        self._spec = spec
        self._strategy = strategy
        self._number = number
        self._evaluators: list[evaluators.Evaluator] = []
        # These exist in the first process only, once the run is claimed and opened.
        self._lock: Any = None
        self._metrics: metrics.Metrics | None = None
        self._checkpoints: checkpoint.Checkpoints | None = None

    # -- Create or resume. --------------------------------------------------------------------

    def claim(self, data: Data) -> None:
        """Makes the run folder, or accepts it, and locks it; prepares the evaluators.

        A folder that cannot be this run's is refused, and nothing in it is touched.
        """
        # The evaluators first: a simulator that is missing leaves no folder behind.
        self._evaluators = evaluators.evaluators(self._config, self._spec, data, self.signals)
        self._lock = directory.claim(self.folder, self._config, self._spec)

    def has_checkpoints(self) -> bool:
        """Whether the run resumes, and its initial weights are not needed."""
        return bool(checkpoint.steps(self.folder))

    def restore(self, like: TrainState, num_devices: int) -> tuple[TrainState | None, dict]:
        """The newest valid checkpoint and its metadata; (None, {}) for a new run."""
        return directory.resume(self.folder, like, num_devices)

    def create(self, initial_state: Callable[[Array], TrainState]) -> TrainState:
        """The state before the first step; initial_state makes it from a random key."""
        return initial_state(self._init_key)

    def vectorize(self, step: Callable, gather: Callable) -> tuple[Callable, Callable]:
        """(step, gather) for the states of this run: they are for a single training already."""
        return step, gather

    # -- Train. -------------------------------------------------------------------------------

    def open(self, clock: Clock) -> Clock:
        """Starts to write metrics and checkpoints; the clock with the seconds of earlier starts."""
        # Lines of steps after the checkpoint are of a start that was killed.
        self._metrics = metrics.Metrics(self.folder, clock.step)
        if self._metrics.removed:
            log.info("%d entries of metrics.jsonl are done again", self._metrics.removed)
        keep_best = self._config.save.keep_best
        self._checkpoints = checkpoint.Checkpoints(self.folder, keep_best=keep_best)
        # A new run has no checkpoint that knows the seconds, but perhaps a metrics file.
        return clock._replace(seconds=clock.seconds or self._metrics.seconds)

    def log(self, window: list[tuple], clock: Clock) -> float:
        """Writes the averages over a window of calls (`metrics.averages`); returns the loss."""
        values = metrics.averages(window, self._number)
        self._write(values, clock)
        return values["loss"]

    def evaluate(self, state: Any, clock: Clock, before: int) -> float | None:
        """Runs the evaluators that are due since step `before`; the score of this step, if any.

        The score is that of rollouts; for a task without a simulator it is what the validation
        calls "rank". Raises Stopped when a signal arrives.
        """
        # Each evaluator that is due gets the averaged weights.
        values: dict[str, Any] = {}
        for every, evaluator in self._evaluators:
            # A signal stops between two evaluators, too.
            if evaluator and evaluators.is_due(every, before, clock.step, self._config.train.steps):
                self.signals.stop_if_received()
                values.update(evaluator(self._on_host(state.ema)))
        # The rank orders checkpoints and is no metric.
        rank = values.pop("rank", None)
        if values:
            self._write(values, clock)
        return values.get("score", rank)

    def save(
        self, state: Any, clock: Clock, score: float | None, *, due: bool, unevaluated: bool = False
    ) -> None:
        """Writes a checkpoint if it is due, or if the step has a score.

        unevaluated: evaluators are due at this step, but a signal came first.
        """
        if self._checkpoints is None or not (due or score is not None):
            return
        # What a resume and a loader need beside the arrays.
        extra = {"spec": self._spec._asdict(), "devices": jax.device_count()}
        extra.update(seconds=clock.seconds, owed=unevaluated)  # "owed" is its name in the file
        host_state = self._on_host(state)
        config = self._config.to_dict()
        self._checkpoints.save(host_state, config=config, score=score, extra=extra)

    def close(self) -> None:
        """Finishes the writing, and gives the folder back."""
        # The checkpoints wait for a save that is being written; the lock goes last.
        for resource in (self._checkpoints, self._metrics, self._lock):
            if resource is not None:
                resource.close()

    def _on_host(self, tree: Any) -> Any:
        """This training's part of a tree on the devices, as numpy arrays."""
        return multi_seed.pick(self._strategy.fetch(tree), self._number)

    def _write(self, values: dict[str, Any], clock: Clock) -> None:
        """An entry of metrics.jsonl."""
        if self._metrics is not None:
            self._metrics.write(clock.step, {**values, "seconds": clock.seconds})
