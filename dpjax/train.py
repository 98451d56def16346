"""Trains a policy.

    python -m dpjax.train --config configs/pusht_demo.py --workdir runs/demo \
        [--config.key=value …] [--profile] [--debug]

A run folder holds config.json, checkpoints/, metrics.jsonl and tensorboard/. Started
again with the same config it goes on where it was; a folder with another config is
refused, never overwritten. --config.train.seeds=3 trains three side by side, into
WORKDIR/seed_<n>. SIGTERM saves and exits. --profile traces the third call
into profile/. --help lists the config's keys.
"""

import contextlib
import functools
import json
import logging
from pathlib import Path
import signal
import sys
import time

from absl import flags
import jax
from ml_collections import ConfigDict
import numpy as np
from tqdm import tqdm

from dpjax.check import collect, rules
from dpjax.config import build, cameras, checks, dataset, sources
from dpjax.config import flags as flags_lib
from dpjax.core.errors import UserError
from dpjax.data import loader
from dpjax.runs import directory, evaluators, init_from, training_run
from dpjax.training import distributed, multi_seed, parallel
from dpjax.training import state as states
from dpjax.training.metrics import averages, refuse_non_finite
from dpjax.training.signals import Signals, Stopped

log = logging.getLogger("dpjax")


def train(config: ConfigDict, workdir: Path, profile: bool = False) -> int:
    """Runs until config.train.steps; returns the exit code.

    All that can be refused comes before the run folder is touched. Of several processes
    the first one alone judges and writes.
    """
    signals, panels, held = Signals(), None, []
    with distributed.fail_together():
        config = sources.resolved(config)
        checks.check(config)
        training_run.check_devices(config.train.batch, config.train.accumulate, jax.device_count())
        if profile:
            training_run.check_profile(config, first=0)
        data = dataset.read(config)
        spec = dataset.spec(data)
        normalizer = dataset.normalizer(config, data.train)
        policy = build.policy(config, normalizer, spec)
        tx, backbone = (
            build.optimizer(config),
            cameras.pretrained(config.encoder) if config.cameras else None,
        )
        windows = dataset.train_windows(config, data)
        example = evaluators.first_batch(config, windows, np.zeros(1, np.int32))
        like = functools.partial(jax.eval_shape, policy.init, jax.random.key(0), example)
        each = training_run.alone(config, workdir)  # the trainings: one, or several side by side
        begun = init_from.initial_params(config, spec, each[0][1], like, data.train.columns)
    distributed.check_same(config=json.dumps(config.to_dict()), data=spec.data)
    with distributed.fail_together():
        if distributed.is_first():
            panels = [evaluators.evaluators(own, spec, data, signals) for own, _ in each]
            held = [directory.claim(folder, own, spec) for own, folder in each]
    try:
        if held:
            say_start(config, data, workdir)
            rules.log_warnings(collect.from_training(config, data, normalizer, windows))
        rngs = [jax.random.split(jax.random.key(own.seed)) for own, _ in each]
        start = functools.partial(cameras.with_backbone, backbone=backbone)
        fresh = lambda rng, batch: start(policy.init(rng, batch))
        create = lambda rng, batch, begun: states.create(begun or fresh(rng, batch), tx)
        like = jax.eval_shape(create, rngs[0][0], example, begun)
        with distributed.fail_together():
            folders = [folder for _, folder in each]
            found, meta = directory.resume_all(folders, like, jax.device_count())
        distributed.check_same(checkpoint=str(meta.get("step")))
        made = jax.jit(create)
        found = [
            made(rng[0], example, begun) if state is None else state
            for state, rng in zip(found, rngs)
        ]
        strategy = parallel.STRATEGIES[config.train.parallel](parallel.all_devices())
        state, step_rng = (
            strategy.place(multi_seed.stack(found)),
            multi_seed.stack([rng[1] for rng in rngs]),
        )
        found.clear()  # a second state would stay in memory, the devices' too, to the end
        step = training_run.stepper(config, policy, tx)
        team = training_run.team(each, panels, spec, signals, strategy, profile)
        return loop(config, team, meta, state, step, step_rng, windows)
    finally:
        signals.close()
        for lock in held:
            lock.close()


def loop(
    config, team: list[training_run.TrainingRun], meta: dict, state, step, rng, windows
) -> int:
    """Calls of `train.steps_per_call` steps, and between them whatever is due.

    team: the trainings side by side, of which `state` and `rng` are; nearly always one.
    state: placed (`parallel.Strategy`); the first call takes its memory.
    """
    first, total = meta.get("step", 0), config.train.steps
    owed = meta.get("owed", False)  # stopped before the judges had seen this step
    if first >= total and not owed:
        log.info("%s is finished: step %d of %d", team[0].workdir, first, total)
        return 0
    if team[0].profile:
        training_run.check_profile(config, first)

    clock, others = training_run.Clock(first, meta.get("seconds", 0.0)), not distributed.is_first()
    slow = 0.5 if sys.stderr.isatty() else 30.0  # a log file wants fewer lines
    about = dict(unit="step", desc="train", mininterval=slow, disable=others)
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=total, initial=first, **about))
        if not others:
            for i, job in enumerate(team):
                team[i], clock = training_run.written(job, clock, stack)
        clock, stop = calls(config, team, clock, bar, owed, state, step, rng, windows)
    distributed.max_over_processes(
        0
    )  # nobody leaves, and is missed, before the last save is complete
    if others:
        return 128 + stop if stop else 0
    if stop:
        print(f"dpjax: {signal.Signals(stop).name}: saved step {clock.step}", file=sys.stderr)
        return 128 + stop
    if clock.compiled is not None:
        log.info(
            "trained for %.1f s, the first call (compiled) took %.1f s; waited %.2f %% of the "
            "time for input",
            *(clock.seconds, clock.compiled, 100 * clock.waited / max(clock.timed, 1e-9)),
        )
    return 0


def calls(config, team, clock: training_run.Clock, bar, owed: bool, state, step, rng, windows):
    """Trains from `clock.step` to the end or to a signal; returns the clock and the signal."""
    batch, strategy, signals = config.train.batch, team[0].strategy, team[0].signals
    call = training_run.caller(config, strategy, step)
    call = training_run.profiled(call, team[0].workdir / "profile") if team[0].profile else call
    table = strategy.place(windows.table)
    size, total, window = config.train.steps_per_call, config.train.steps, []
    share = parallel.local_slice(batch, parallel.all_devices())
    own_seeds = [job.config.seed for job in team]
    seed = own_seeds[0] if team[0].number is None else own_seeds
    make = functools.partial(windows.call_inputs, batch, seed, share=share)
    if owed:
        for job in team:
            job.save(state, clock, job.judge(state, clock, clock.step - size), owed=False)
    for n, inputs, waited in loader.feed(make, clock.step, total, size):
        start, before = time.perf_counter(), clock.step
        state, sums = call(state, rng, table, inputs)
        took = time.perf_counter() - start + waited
        window.append((sums, n, None if clock.compiled is None else took, waited))
        if clock.compiled is None:
            signals.listen()
        clock = clock.after(n, took, waited)
        refuse_non_finite(sums, before)
        bar.update(n)
        if signals.received or evaluators.due(config.log.every, before, clock.step, total):
            for job in team:
                values = averages(window, job.number)
                job.write(clock, values)
            bar.set_postfix(loss=f"{values['loss']:.4f}")
            window = []
        try:
            scores, owed = [job.judge(state, clock, before) for job in team], False
        except Stopped:
            scores, owed = [None] * len(team), True
        # Read once: what comes later waits for the next call. All processes stop as one.
        stop = distributed.max_over_processes(signals.received or 0)
        due = evaluators.due(config.save.every, before, clock.step, total)
        for job, score in zip(team, scores):
            if stop or clock.step >= total or score is not None or due:
                job.save(state, clock, score, owed)
        if stop:
            return clock, stop
    return clock, None


def say_start(config: ConfigDict, data: dataset.Data, workdir: Path) -> None:
    """The resolved config and what it will be trained on."""
    print(json.dumps(config.to_dict(), indent=2), flush=True)
    log.info(
        "%s: %d episodes to train on (%d steps), %d held out; %s",
        data.train.source,
        len(data.train.ends),
        data.train.ends[-1],
        len(data.val.ends),
        workdir,
    )


def main(argv: list[str]) -> int:
    """Parses the command line and trains; returns the exit code."""
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
        distributed.start()
        if not distributed.is_first():
            log.setLevel(logging.WARNING)  # the first process reports what is no warning
    try:
        return train(config, Path(args.workdir), args.profile)
    except OSError as error:
        raise UserError(f"{error.filename or args.workdir}: {error.strerror or error}.") from error


def command() -> None:
    """`python -m dpjax.train`."""
    flags_lib.run(lambda: main(sys.argv))


if __name__ == "__main__":
    command()
