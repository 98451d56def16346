"""A training under strategy: its calls, what stays the same in it, who is told, how far it is."""

from collections.abc import Callable
import contextlib
import functools
import itertools
import logging
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict
import optax

from dpjax.config import dataset
from dpjax.config.arguments import names_keys
from dpjax.core import spec as spec_lib
from dpjax.core.errors import UserError
from dpjax.data import loader
from dpjax.policies.base import Policy
from dpjax.runs import evaluators
from dpjax.training import checkpoint, multi_seed, parallel
from dpjax.training.metrics import Metrics
from dpjax.training.signals import Signals
from dpjax.training.step import check_accumulation, train_step

TRACED = 2  # the call that is traced: 0 compiles, 1 may still touch new memory

log = logging.getLogger("dpjax")


def stepper(config: ConfigDict, policy: Policy, tx: optax.GradientTransformation) -> Callable:
    """`train_step` of that policy and optimizer, as the config says."""
    options = dict(ema_power=config.ema.power, ema_max=config.ema.max)
    options.update(grad_clip=config.optim.grad_clip, accumulate=config.train.accumulate)
    return functools.partial(train_step, policy, tx, **options)


def caller(config: ConfigDict, strategy: parallel.Strategy, step: Callable) -> Callable:
    """`call(state, rng, table, inputs)`: steps on the windows that the inputs name.

    One program for all of them; with cameras on a CPU, one a step (`parallel.one_by_one`).
    """
    gather = functools.partial(loader.gather, num_observed=dataset.observed_steps(config))
    if config.train.seeds > 1:
        step, gather = multi_seed.side_by_side(step, gather)
    call = strategy.repeat(step, gather)
    slow = config.cameras and jax.default_backend() == "cpu"
    return parallel.one_by_one(call) if slow else call


def profiled(call: Callable, folder: Path) -> Callable:
    """`call` with its third call under `jax.profiler`, written to the folder."""
    made = itertools.count()

    def run(*inputs):
        if next(made) != TRACED:
            return call(*inputs)
        with jax.profiler.trace(str(folder), create_perfetto_trace=True):
            result = jax.block_until_ready(call(*inputs))
        log.info("traced one call: %s (tensorboard --logdir, or ui.perfetto.dev)", folder)
        return result

    return run


@names_keys(rows="train.batch", parts="train.accumulate")
def check_devices(batch: int, accumulate: int, num_devices: int) -> None:
    """Refuses a global batch that the devices, or a device's parts, cannot split evenly."""
    parallel.check_batch(batch, num_devices)
    check_accumulation(batch // num_devices, accumulate)


def check_profile(config: ConfigDict, first: int) -> None:
    """Refuses a trace that the run would end without."""
    left = -(-(config.train.steps - first) // config.train.steps_per_call)
    if left <= TRACED:
        raise UserError(
            f"--profile traces call {TRACED + 1} of this start, and {max(left, 0)} of "
            f"config.train.steps_per_call={config.train.steps_per_call} steps are left: raise "
            "config.train.steps, or choose another workdir."
        )


class Clock(NamedTuple):
    """Steps and seconds of a run.

    step: done. seconds: of all starts. compiled: seconds of this start's first call.
    timed, waited: of its later calls, and what of that was waiting for input.
    """

    step: int
    seconds: float
    compiled: float | None = None
    timed: float = 0.0
    waited: float = 0.0

    def after(self, steps: int, took: float, waited: float) -> "Clock":
        """The clock after a call."""
        later = self._replace(step=self.step + steps, seconds=self.seconds + took)
        if self.compiled is None:
            return later._replace(compiled=took)
        return later._replace(timed=self.timed + took, waited=self.waited + waited)


class TrainingRun(NamedTuple):
    """What stays the same all through a run, and who is told about it.

    metrics, checkpoints: None in all processes but the first. profile: trace one call.
    number: which of several trainings side by side it is; None where it is alone.
    """

    config: ConfigDict
    workdir: Path
    spec: spec_lib.Spec
    signals: Signals
    evaluators: list[evaluators.Evaluator]
    strategy: parallel.Strategy
    metrics: Metrics | None = None
    checkpoints: checkpoint.Checkpoints | None = None
    profile: bool = False
    number: int | None = None

    def own(self, tree):
        """This training's part of a tree on the devices, on the host."""
        return multi_seed.pick(self.strategy.fetch(tree), self.number)

    def judge(self, state, clock: Clock, before: int) -> float | None:
        """Validation and evaluation as far as they are due; what ranks this step, if anything.

        The score of rollouts; of tasks without a simulator what their judge calls "rank".
        """
        values, total = {}, self.config.train.steps
        for every, run in self.evaluators:
            if run and evaluators.due(every, before, clock.step, total):
                self.signals.stop_if_received()
                values.update(run(self.own(state.ema)))
        rank = values.pop("rank", None)
        if values:
            self.write(clock, values)
        return values.get("score", rank)

    def write(self, clock: Clock, values: dict) -> None:
        """An entry of metrics.jsonl."""
        if self.metrics:
            self.metrics.write(clock.step, {**values, "seconds": clock.seconds})

    def save(self, state, clock: Clock, score: float | None, owed: bool) -> None:
        """A checkpoint. owed: the judges have not seen it yet."""
        if not self.checkpoints:
            return
        extra = {"spec": self.spec._asdict(), "devices": jax.device_count()}
        extra.update(seconds=clock.seconds, owed=owed)
        one, config = self.own(state), self.config.to_dict()
        self.checkpoints.save(one, config=config, score=score, extra=extra)


def written(
    job: TrainingRun, clock: Clock, stack: contextlib.ExitStack
) -> tuple[TrainingRun, Clock]:
    """The job with its writers, which the stack closes, and the clock as they know it."""
    metrics = stack.enter_context(contextlib.closing(Metrics(job.workdir, clock.step)))
    if metrics.removed:
        log.info("%d entries of metrics.jsonl are done again", metrics.removed)
    saves = checkpoint.Checkpoints(job.workdir, keep_best=job.config.save.keep_best)
    job = job._replace(metrics=metrics, checkpoints=stack.enter_context(contextlib.closing(saves)))
    return job, clock._replace(seconds=clock.seconds or metrics.seconds)


def alone(config: ConfigDict, workdir: Path) -> list[tuple[ConfigDict, Path]]:
    """The config and folder of each training of a config: what it would be alone."""
    if config.train.seeds == 1:
        return [(config, workdir)]
    if (workdir / "config.json").exists():
        raise UserError(
            f"--workdir {workdir} is a run: config.train.seeds={config.train.seeds} makes a "
            "folder of runs, give another."
        )
    each = []
    for seed in range(config.seed, config.seed + config.train.seeds):
        own = config.copy_and_resolve_references()
        with own.unlocked():
            own.seed, own.train.seeds = seed, 1
        each.append((own, workdir / f"seed_{seed}"))
    return each


def team(
    each, panels, spec, signals: Signals, strategy: parallel.Strategy, profile: bool
) -> list[TrainingRun]:
    """A job for each training of `alone`. panels: the judges of each; None: no judging here."""
    numbers = [None] if len(each) == 1 else range(len(each))
    return [
        TrainingRun(own, folder, spec, signals, panel, strategy, profile=profile, number=number)
        for number, (own, folder), panel in zip(numbers, each, panels or [[] for _ in each])
    ]
