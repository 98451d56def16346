"""A training run: its folder, its writers, and its evaluators."""

from collections.abc import Callable
import logging
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from dpjax.config.dataset import Data
from dpjax.core.spec import Spec
from dpjax.core.types import Array
from dpjax.runs import directory, evaluators, limits_file
from dpjax.runs.progress import Clock
from dpjax.training import checkpoint, metrics, multi_seed
from dpjax.training.parallel import Strategy
from dpjax.training.signals import Signals
from dpjax.training.state import TrainState

log = logging.getLogger("dpjax")


class TrainingRun:
    """A single training and its run folder. `MultiSeedRun` has the same interface for several.

    Of several processes only the first one calls `claim` and `open`. In the other processes the
    run evaluates nothing and writes nothing.

    folder: the run folder.
    seed: the seed of weights, batches and noise.
    signals: the signals that stop the training.
    step_key: a random key; step i uses fold_in(step_key, i).
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
        """number: the index among several trainings side by side; None for a single training."""
        # Read by the training loop.
        self.folder = folder
        self.seed = config.seed
        self.signals = signals
        self._init_key, self.step_key = jax.random.split(jax.random.key(config.seed))
        # For this class only.
        self._config = config
        self._spec = spec
        self._strategy = strategy
        self._number = number
        self._evaluators: list[evaluators.Evaluator] = []
        # `claim` and `open` set these, in the first process only.
        self._lock: Any = None
        self._metrics: metrics.Metrics | None = None
        self._checkpoints: checkpoint.Checkpoints | None = None

    # -- Create or resume. --------------------------------------------------------------------

    def claim(self, data: Data) -> None:
        """Prepares the evaluators, creates or accepts the run folder, and locks it.

        Raises UserError, and changes nothing, if the folder holds something else.
        """
        # The evaluators come first, so that a missing simulator leaves no folder behind.
        self._evaluators = evaluators.evaluators(self._config, self._spec, data, self.signals)
        self._lock = directory.claim(self.folder, self._config, self._spec)
        # The robot loop refuses what goes beyond the demonstrations.
        limits_file.write(self.folder, data.train)

    def has_checkpoints(self) -> bool:
        """Whether the run is resumed, so that no initial weights are needed."""
        return bool(checkpoint.steps(self.folder))

    def restore(self, like: TrainState, num_devices: int) -> tuple[TrainState | None, dict]:
        """(state, metadata) of the newest valid checkpoint; (None, {}) for a new run."""
        return directory.resume(self.folder, like, num_devices)

    def create(self, initial_state: Callable[[Array], TrainState]) -> TrainState:
        """The state before the first step. initial_state: makes it from a random key."""
        return initial_state(self._init_key)

    def vectorize(self, step: Callable, gather: Callable) -> tuple[Callable, Callable]:
        """(step, gather) as they are, since they are for a single training."""
        return step, gather

    # -- Train. -------------------------------------------------------------------------------

    def open(self, clock: Clock) -> Clock:
        """Opens metrics and checkpoints; returns the clock with the seconds of earlier starts."""
        # A start that was killed may have written metrics of steps after the checkpoint. They are
        # removed, since these steps are done again.
        self._metrics = metrics.Metrics(self.folder, clock.step)
        if self._metrics.removed:
            log.info("%d entries of metrics.jsonl are done again", self._metrics.removed)
        keep_best = self._config.save.keep_best
        self._checkpoints = checkpoint.Checkpoints(self.folder, keep_best=keep_best)
        # A start that was killed before its first checkpoint left its seconds in the metrics only.
        return clock._replace(seconds=clock.seconds or self._metrics.seconds)

    def log(self, window: list[tuple], clock: Clock) -> float:
        """Writes the metrics averaged over several calls (`metrics.averages`); returns the loss."""
        values = metrics.averages(window, self._number)
        self._write(values, clock)
        return values["loss"]

    def evaluate(self, state: Any, clock: Clock, before: int) -> float | None:
        """Runs the evaluators that are due since step `before`; returns the score, or None.

        The score is the one of rollouts, or the "rank" of the validation for a task without a
        simulator. Raises Stopped when a signal arrives.
        """
        values: dict[str, Any] = {}
        for every, evaluator in self._evaluators:
            # Each evaluator gets the averaged weights. A signal also stops between two of them.
            if evaluator and evaluators.is_due(every, before, clock.step, self._config.train.steps):
                self.signals.stop_if_received()
                values.update(evaluator(self._on_host(state.ema)))
        # The rank only orders checkpoints, so it is not written as a metric.
        rank = values.pop("rank", None)
        if values:
            self._write(values, clock)
        return values.get("score", rank)

    def save(
        self, state: Any, clock: Clock, score: float | None, *, due: bool, unevaluated: bool = False
    ) -> None:
        """Writes a checkpoint if it is due, or if the step has a score.

        unevaluated: whether a signal prevented an evaluation that was due at this step.
        """
        # A scored step is saved in any case: it may be the best one.
        if self._checkpoints is None or not (due or score is not None):
            return
        # Metadata, for resuming and for loading.
        extra = {"spec": self._spec._asdict(), "devices": jax.device_count()}
        extra.update(seconds=clock.seconds, owed=unevaluated)  # "owed" is its name in the file
        host_state = self._on_host(state)
        config = self._config.to_dict()
        self._checkpoints.save(host_state, config=config, score=score, extra=extra)

    def close(self) -> None:
        """Finishes writing, and unlocks the folder."""
        # Closing the checkpoints waits for a save in progress. The lock is released last.
        for resource in (self._checkpoints, self._metrics, self._lock):
            if resource is not None:
                resource.close()

    def _on_host(self, tree: Any) -> Any:
        """The part of a tree on the devices that belongs to this training, as numpy arrays."""
        # With several trainings side by side, leaves are [n, …] and this training is one of n.
        return multi_seed.pick(self._strategy.fetch(tree), self._number)

    def _write(self, values: dict[str, Any], clock: Clock) -> None:
        """Writes an entry of metrics.jsonl."""
        if self._metrics is not None:
            self._metrics.write(clock.step, {**values, "seconds": clock.seconds})
