"""Trains a policy.

    python -m dpjax.train --config pusht_demo --workdir runs/demo [--config.key=value …]
        [--profile] [--verbose] [--debug]

--config: a recipe by its name, or a config file.
--workdir: the run folder: config.json, checkpoints/, metrics.jsonl and tensorboard/. The same
  command again resumes the training. A folder with another config is an error, and is not
  overwritten. --config.train.seeds=3 trains three runs side by side, in WORKDIR/seed_<n>.
--profile: trace the third call into WORKDIR/profile. --verbose: print the whole config.
--debug: show the traceback of an error.
SIGTERM saves and exits.
"""

from collections.abc import Iterator
import contextlib
import functools
import json
import logging
from pathlib import Path
import signal
import sys
import time
from typing import Any

from absl import flags
import jax
from ml_collections import ConfigDict

from dpjax.check import collect, rules
from dpjax.config import dataset
from dpjax.config import flags as flags_lib
from dpjax.config.arguments import names_keys
from dpjax.core.errors import UserError
from dpjax.data import loader
from dpjax.runs import progress, steps
from dpjax.runs.evaluators import is_due
from dpjax.runs.progress import Clock
from dpjax.runs.setup import Setup, set_up
from dpjax.training import distributed, parallel
from dpjax.training.metrics import refuse_non_finite
from dpjax.training.signals import Signals, Stopped
from dpjax.training.state import TrainState

log = logging.getLogger("dpjax")


def train(
    config: ConfigDict, workdir: Path, *, profile: bool = False, verbose: bool = False
) -> int:
    """Trains until config.train.steps or a signal; returns the exit code of the command."""
    # Several processes can run this together. Only the first one evaluates and writes.
    signals = Signals()
    try:
        # 1. Set up. All mistakes are reported here, before the run folder is touched.
        with distributed.fail_together():
            setup = set_up(config, workdir, signals, profile)
        # All processes must train on the same data with the same config.
        fingerprint = dataset.spec(setup.data).data
        distributed.check_same(config=json.dumps(setup.config.to_dict()), data=fingerprint)

        with contextlib.closing(setup.run):
            # 2. Create the run, or resume it from its newest checkpoint.
            with distributed.fail_together():
                if distributed.is_first():
                    setup.run.claim(setup.data)
                    report_start(setup, verbose)
            state, meta = create_or_resume(setup)

            # 3. Train.
            first_step = meta.get("step", 0)
            clock = Clock(first_step, meta.get("seconds", 0.0))
            is_unevaluated = meta.get("owed", False)  # a signal came before its evaluation
            if first_step >= config.train.steps and not is_unevaluated:
                progress.log_finished(workdir, first_step, config.train.steps)
                return 0
            if profile:
                steps.check_profile(config.train.steps - first_step, config.train.steps_per_call)
            clock, stop_signal = train_until_stopped(setup, state, clock, is_unevaluated)
        # A barrier: no process exits before the first one has completed the last save.
        distributed.max_over_processes(0)
        return report_end(clock, stop_signal)
    finally:
        signals.close()


def create_or_resume(setup: Setup) -> tuple[TrainState, dict]:
    """(state on the devices, metadata of its checkpoint); the metadata is {} for a new run."""
    # A checkpoint is restored into the tree of a new run's state, of which only shapes are needed.
    shapes = jax.eval_shape(setup.initial_state, jax.random.key(0))
    with distributed.fail_together():
        state, meta = setup.run.restore(shapes, jax.device_count())
    # All processes must have read the same checkpoint.
    distributed.check_same(checkpoint=str(meta.get("step")))
    if state is None:
        state = setup.run.create(setup.initial_state)
    return setup.strategy.place(state), meta


def train_until_stopped(
    setup: Setup, state: TrainState, clock: Clock, is_unevaluated: bool
) -> tuple[Clock, int | None]:
    """Trains from `clock.step` to the end or to a signal; returns (clock, signal or None).

    is_unevaluated: whether step `clock.step` has not been evaluated yet, although it was due.
    """
    run = setup.run
    config = setup.config
    # Only the first process writes, and shows the progress bar.
    if distributed.is_first():
        clock = run.open(clock)
    bar = progress.Bar(clock.step, config.train.steps, hidden=not distributed.is_first())
    with contextlib.closing(bar), names_keys():
        # The evaluation that the last start left out, as if its last call had just ended.
        if is_unevaluated:
            score = run.evaluate(state, clock, clock.step - config.train.steps_per_call)
            run.save(state, clock, score, due=True)
        return loop(setup, state, clock, bar)


def loop(
    setup: Setup, state: TrainState, clock: Clock, bar: progress.Bar
) -> tuple[Clock, int | None]:
    """Calls the compiled steps, and after each call logs, evaluates and saves what is due."""
    run = setup.run
    signals = run.signals
    total = setup.config.train.steps
    # Vectors of the data are copied to the devices once. Images come with the inputs of each call.
    table = setup.strategy.place(setup.windows.table)
    window = []  # one tuple per call since the last line of metrics
    for num_steps, inputs, waited in inputs_of_calls(setup, clock.step):
        # The steps. The call overwrites the memory of the old state (its buffers are donated).
        before = clock.step
        start = time.perf_counter()
        state, metrics = setup.call(state, run.step_key, table, inputs)
        seconds = time.perf_counter() - start + waited
        is_first_call = clock.compile_seconds is None
        if is_first_call:
            signals.listen()  # from now on a signal saves the run first
        # The time of the first call is mostly compilation, so it does not count for the speed.
        window.append((metrics, num_steps, None if is_first_call else seconds, waited))
        clock = clock.after_call(num_steps, seconds, waited)
        refuse_non_finite(metrics, before)
        bar.update(num_steps)

        # Metrics, then evaluation. `due` tells whether this call reached a multiple of `every`.
        due = lambda every: is_due(every, before, clock.step, total)  # noqa: B023
        if signals.received or due(setup.config.log.every):
            bar.show(loss=f"{run.log(window, clock):.4f}")
            window = []
        score, is_evaluated = evaluate_unless_stopped(setup, state, clock, before)
        # A checkpoint. The signal is read once, so that saving and stopping agree. The maximum over
        # all processes makes them stop at the same step.
        stop_signal = distributed.max_over_processes(signals.received or 0)
        save = bool(stop_signal) or clock.step >= total or due(setup.config.save.every)
        run.save(state, clock, score, due=save, unevaluated=not is_evaluated)
        if stop_signal:
            return clock, stop_signal
    return clock, None


def evaluate_unless_stopped(
    setup: Setup, state: TrainState, clock: Clock, before: int
) -> tuple[Any, bool]:
    """(score of this step or None, whether all evaluators that were due ran to their end)."""
    # The next start repeats an evaluation that a signal ends.
    try:
        return setup.run.evaluate(state, clock, before), True
    except Stopped:
        return None, False


def inputs_of_calls(setup: Setup, first_step: int) -> Iterator[tuple[int, loader.Inputs, float]]:
    """Yields (number of steps, inputs, seconds waited for the inputs) for each call."""
    settings = setup.config.train
    make = functools.partial(
        setup.windows.call_inputs,
        settings.batch,
        setup.run.seed,
        # The part of each batch that is on this process's devices.
        share=parallel.local_slice(settings.batch, parallel.all_devices()),
    )
    return loader.feed(make, first_step, settings.steps, settings.steps_per_call)


def report_start(setup: Setup, verbose: bool) -> None:
    """Logs the size of the data, the run folder, and warnings about data and config."""
    if verbose:
        print(json.dumps(setup.config.to_dict(), indent=2), flush=True)
    train = setup.data.train
    log.info(
        "%s: %d episodes to train on (%d steps), %d held out",
        train.source,
        len(train.ends),
        train.ends[-1],
        len(setup.data.val.ends),
    )
    log.info("%s: the run, with its config in config.json (--verbose prints it)", setup.run.folder)
    context = collect.from_training(setup.config, setup.data, setup.normalizer, setup.windows)
    rules.log_warnings(context)


def report_end(clock: Clock, stop_signal: int | None) -> int:
    """Reports the duration, or the signal that ended the training; returns the exit code."""
    # A process that a signal ends has the exit code 128 + its number, by convention.
    if stop_signal:
        if distributed.is_first():
            name = signal.Signals(stop_signal).name
            print(f"dpjax: {name}: saved step {clock.step}", file=sys.stderr)
        return 128 + stop_signal
    if distributed.is_first():
        progress.log_times(clock)
    return 0


def main(argv: list[str]) -> int:
    """Parses the command line and trains; returns the exit code."""
    # Separate FlagValues, because other commands define flags with the same names.
    args = flags.FlagValues()
    define = dict(flag_values=args)
    flags.DEFINE_string("workdir", None, "The run folder: new, or one to continue.", **define)
    flags.DEFINE_boolean("profile", False, "Trace one call into WORKDIR/profile.", **define)
    flags.DEFINE_boolean("verbose", False, "Print the whole config.", **define)
    config = flags_lib.parse(argv, __doc__, args)
    if config is None or args.workdir is None:
        raise UserError(
            "give --config (a recipe, or a config file) and --workdir (the run folder)."
        )
    # Processes are connected before anything uses the devices.
    if config.get("distributed"):
        with names_keys():
            distributed.start()
        if not distributed.is_first():
            log.setLevel(logging.WARNING)  # only the first process logs more than warnings
    workdir = Path(args.workdir)
    try:
        return train(config, workdir, profile=args.profile, verbose=args.verbose)
    except OSError as error:
        raise UserError(f"{error.filename or workdir}: {error.strerror or error}.") from error


def command() -> None:
    """`python -m dpjax.train`."""
    flags_lib.run(lambda: main(sys.argv))


if __name__ == "__main__":
    command()
