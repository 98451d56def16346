"""Trains a policy.

    python -m dpjax.train --config configs/pusht_demo.py --workdir runs/demo \
        [--config.key=value …] [--profile] [--debug]

A run folder holds config.json, checkpoints/, metrics.jsonl and tensorboard/. Started
again with the same config it goes on where it was; a folder with another config is
refused, never overwritten. SIGTERM saves and exits. --profile traces the third call
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

from absl import app, flags
import jax
from ml_collections import ConfigDict, config_flags
import numpy as np
from tqdm import tqdm

from configs import base
from dpjax import beginning, build, cameras, command_line, dataset, jobs, judges, run_folder
from dpjax.data import loader
from dpjax.doctor import examine, read
from dpjax.errors import UserError
from dpjax.training import distributed, parallel
from dpjax.training import state as states
from dpjax.training.metrics import averages, refuse_non_finite
from dpjax.training.signals import Signals, Stopped

CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run folder: new, or one to go on with.")
PROFILE = flags.DEFINE_boolean("profile", False, "Trace one call into WORKDIR/profile.")

log = logging.getLogger("dpjax")


def train(config: ConfigDict, workdir: Path, profile: bool = False) -> int:
    """Runs until config.train.steps; returns the exit code.

    All that can be refused comes before the run folder is touched. Of several processes
    the first one alone judges and writes.
    """
    signals, panel, held = Signals(), [], None
    with distributed.together():
        config = dataset.resolved(config)
        build.check(config)
        if profile:
            jobs.check_profile(config, first=0)
        data = dataset.read(config)
        spec = dataset.spec(data)
        normalizer = dataset.normalizer(config, data.train)
        policy = build.policy(config, normalizer, spec)
        tx, backbone = build.optimizer(config), cameras.pretrained(config)
        windows = dataset.place(config, data)
        example = judges.first_batch(config, windows, np.zeros(1, np.int32))
        like = jax.eval_shape(policy.init, jax.random.key(0), example)
        begun = beginning.read(config, spec, workdir, like, data.train.columns)
    distributed.check_same(config=json.dumps(config.to_dict()), data=spec.data)
    with distributed.together():
        if distributed.is_first():
            panel = judges.all_of(config, spec, data, signals)
            held = run_folder.claim(workdir, config, spec)
    try:
        if held:
            say_start(config, data, workdir)
            examine.warn(read.of_training(config, data, normalizer, windows))
        init_rng, step_rng = jax.random.split(jax.random.key(config.seed))
        start = functools.partial(cameras.begin_with, backbone=backbone)
        fresh = lambda rng, batch: start(policy.init(rng, batch))
        create = lambda rng, batch, begun: states.create(begun or fresh(rng, batch), tx)
        like = jax.eval_shape(create, init_rng, example, begun)
        with distributed.together():
            state, meta = run_folder.resume(workdir, like, jax.device_count())
        distributed.check_same(checkpoint=str(meta.get("step")))
        if state is None:
            state = jax.jit(create)(init_rng, example, begun)
        step = jobs.stepper(config, policy, tx)
        way = parallel.WAYS[config.train.parallel](parallel.all_devices())
        job = jobs.Job(config, workdir, spec, signals, panel, way, profile=profile)
        return loop(job, meta, state, step, step_rng, windows)
    finally:
        signals.close()
        if held:
            held.close()


def loop(job: jobs.Job, meta: dict, state, step, rng, windows: loader.Windows) -> int:
    """Calls of `train.steps_per_call` steps, and between them whatever is due."""
    first, total = meta.get("step", 0), job.config.train.steps
    owed = meta.get("owed", False)  # stopped before the judges had seen this step
    if first >= total and not owed:
        log.info("%s is finished: step %d of %d", job.workdir, first, total)
        return 0
    if job.profile:
        jobs.check_profile(job.config, first)

    clock, others = jobs.Clock(first, meta.get("seconds", 0.0)), not distributed.is_first()
    slow = 0.5 if sys.stderr.isatty() else 30.0  # a log file wants fewer lines
    about = dict(unit="step", desc="train", mininterval=slow, disable=others)
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(tqdm(total=total, initial=first, **about))
        if not others:
            job, clock = jobs.written(job, clock, stack)
        clock, stop = calls(job, clock, bar, owed, state, step, rng, windows)
    distributed.largest(0)  # nobody leaves, and is missed, before the last save is complete
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


def calls(job: jobs.Job, clock: jobs.Clock, bar, owed: bool, state, step, rng, windows):
    """Trains from `clock.step` to the end or to a signal; returns the clock and the signal."""
    config, batch = job.config, job.config.train.batch
    call = jobs.caller(config, job.way, step)
    call = jobs.profiled(call, job.workdir / "profile") if job.profile else call
    state, table = job.way.place((state, windows.table))
    size, total, window = config.train.steps_per_call, config.train.steps, []
    share = parallel.share(batch, parallel.all_devices())
    make = functools.partial(windows.call, batch, config.seed, share=share)
    if owed:
        score = job.judge(state, clock, clock.step - size)
        job.save(state, clock, score, owed=False)
    for n, inputs, waited in loader.feed(make, clock.step, total, size):
        start, before = time.perf_counter(), clock.step
        state, sums = call(state, rng, table, inputs)
        took = time.perf_counter() - start + waited
        window.append((sums, n, None if clock.compiled is None else took, waited))
        if clock.compiled is None:
            job.signals.listen()
        clock = clock.after(n, took, waited)
        refuse_non_finite(sums, before)
        bar.update(n)
        if job.signals.received or judges.due(config.log.every, before, clock.step, total):
            values = averages(window)
            bar.set_postfix(loss=f"{values['loss']:.4f}")
            job.write(clock, values)
            window = []
        try:
            score, owed = job.judge(state, clock, before), False
        except Stopped:
            score, owed = None, True
        # Read once: what comes later waits for the next call. All processes stop as one.
        stop = distributed.largest(job.signals.received or 0)
        due = judges.due(config.save.every, before, clock.step, total)
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


def main(_):
    logging.basicConfig(level=logging.INFO, format="dpjax: %(message)s", force=True)
    for name in ("absl", "jax", "orbax"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if CONFIG.value is None or WORKDIR.value is None:
        raise UserError("give --config (a file of configs/) and --workdir (the run folder).")
    if CONFIG.value.get("distributed"):
        distributed.start()
        if not distributed.is_first():
            log.setLevel(logging.WARNING)  # what is no warning, the first process says
    try:
        return train(CONFIG.value, Path(WORKDIR.value), PROFILE.value)
    except OSError as error:
        where = error.filename or WORKDIR.value
        raise UserError(f"{where}: {error.strerror or error}.") from error


def parse(argv):
    return command_line.parse(argv, __doc__, base.get_config().to_dict())


def command():
    command_line.run(lambda: app.run(main, flags_parser=parse))


if __name__ == "__main__":
    command()
