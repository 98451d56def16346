"""Trains a policy.

    python -m dpjax.train --config pusht_demo --workdir runs/demo [--config.key=value …]
        [--profile] [--verbose] [--debug]

--config: a recipe by its name, or a config file.
--workdir: the run folder: config.json, checkpoints/, metrics.jsonl and tensorboard/. Started
  again with the same config, the training continues where it was. A folder with another config is
  refused, never overwritten. --config.train.seeds=3 trains three runs side by side, into
  WORKDIR/seed_<n>.
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
    """Trains until config.train.steps or a signal; returns the exit code of the command.

    Several processes run this together; the first one alone evaluates and writes.
    """
    signals = Signals()
    try:
        # 1. Set up. Whatever can be refused is refused here, before the run folder is touched.
        with distributed.fail_together():
            setup = set_up(config, workdir, signals, profile)
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
            is_unevaluated = meta.get("owed", False)  # stopped before this step's evaluation
            if first_step >= config.train.steps and not is_unevaluated:
                log.info("%s is finished: step %d of %d", workdir, first_step, config.train.steps)
                return 0
            if profile:
                steps.check_profile(config.train.steps - first_step, config.train.steps_per_call)
            clock, stop_signal = train_until_stopped(setup, state, clock, is_unevaluated)
        # No process leaves, and is missed, before the last save is complete.
        distributed.max_over_processes(0)
        return report_end(clock, stop_signal)
    finally:
        signals.close()


def create_or_resume(setup: Setup) -> tuple[TrainState, dict]:
    """The state on the devices, and the metadata of the checkpoint that it comes from ({}: new)."""
    # A checkpoint is restored into the tree that a new run would have.
    shapes = jax.eval_shape(setup.initial_state, jax.random.key(0))
    with distributed.fail_together():
        state, meta = setup.run.restore(shapes, jax.device_count())
    distributed.check_same(checkpoint=str(meta.get("step")))
    if state is None:
        state = setup.run.create(setup.initial_state)
    return setup.strategy.place(state), meta


def train_until_stopped(
    setup: Setup, state: TrainState, clock: Clock, is_unevaluated: bool
) -> tuple[Clock, int | None]:
    """Trains from `clock.step` to the end or to a signal; returns the clock and the signal.

    is_unevaluated: whether the evaluation of step `clock.step` is still to be done.
    """
    run = setup.run
    config = setup.config
    # Writers and the bar are the first process's.
    if distributed.is_first():
        clock = run.open(clock)
    bar = progress.Bar(clock.step, config.train.steps, hidden=not distributed.is_first())
    with contextlib.closing(bar), names_keys():
        # The last start was stopped between its last step and the evaluation of it.
        if is_unevaluated:
            score = run.evaluate(state, clock, clock.step - config.train.steps_per_call)
            run.save(state, clock, score, due=True)
        return loop(setup, state, clock, bar)


def loop(
    setup: Setup, state: TrainState, clock: Clock, bar: progress.Bar
) -> tuple[Clock, int | None]:
    """Calls of `train.steps_per_call` steps, and after each of them whatever is due."""
    run = setup.run
    signals = run.signals
    total = setup.config.train.steps
    # The columns of numbers stay on the devices; images come with the inputs of each call.
    table = setup.strategy.place(setup.windows.table)
    window = []  # calls since the last line of metrics
    for num_steps, inputs, waited in inputs_of_calls(setup, clock.step):
        # The steps. The call reuses the memory of the old state, which is gone after it.
        before = clock.step
        start = time.perf_counter()
        state, metrics = setup.call(state, run.step_key, table, inputs)
        seconds = time.perf_counter() - start + waited
        is_first_call = clock.compile_seconds is None
        if is_first_call:
            signals.listen()  # from here on there is something to save
        window.append((metrics, num_steps, None if is_first_call else seconds, waited))
        clock = clock.after_call(num_steps, seconds, waited)
        refuse_non_finite(metrics, before)
        bar.update(num_steps)

        # Metrics.
        due = lambda every: is_due(every, before, clock.step, total)  # noqa: B023
        if signals.received or due(setup.config.log.every):
            bar.show(loss=f"{run.log(window, clock):.4f}")
            window = []
        score, is_evaluated = evaluate_unless_stopped(setup, state, clock, before)
        # A checkpoint. The signal is read once, a later one waits for the next call. All processes
        # agree on it, so that they stop at the same step.
        stop_signal = distributed.max_over_processes(signals.received or 0)
        save = bool(stop_signal) or clock.step >= total or due(setup.config.save.every)
        run.save(state, clock, score, due=save, unevaluated=not is_evaluated)
        if stop_signal:
            return clock, stop_signal
    return clock, None


def evaluate_unless_stopped(
    setup: Setup, state: TrainState, clock: Clock, before: int
) -> tuple[Any, bool]:
    """(the score of this step or None, whether all evaluators that were due ran to their end).

    What a signal cuts short is done at the next start.
    """
    try:
        return setup.run.evaluate(state, clock, before), True
    except Stopped:
        return None, False


def inputs_of_calls(setup: Setup, first_step: int) -> Iterator[tuple[int, loader.Inputs, float]]:
    """(number of steps, inputs, seconds waited for them) of one call after another."""
    settings = setup.config.train
    make = functools.partial(
        setup.windows.call_inputs,
        settings.batch,
        setup.run.seed,
        # The examples of each batch that this process works on.
        share=parallel.local_slice(settings.batch, parallel.all_devices()),
    )
    return loader.feed(make, first_step, settings.steps, settings.steps_per_call)


def report_start(setup: Setup, verbose: bool) -> None:
    """What is trained on, where the config lies, and what is suspicious in both."""
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
    rules.log_warnings(
        collect.from_training(setup.config, setup.data, setup.normalizer, setup.windows)
    )


def report_end(clock: Clock, stop_signal: int | None) -> int:
    """How long it took, or by which signal it ended; returns the exit code."""
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
    # Flags of its own: other commands have some of the same names.
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
    if config.get("distributed"):
        with names_keys():
            distributed.start()
        if not distributed.is_first():
            log.setLevel(logging.WARNING)  # only the first process reports more than warnings
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
