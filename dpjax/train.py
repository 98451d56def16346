"""Trains a policy.

    python -m dpjax.train --config configs/pusht_demo.py --workdir runs/demo \
        [--config.key=value …] [--debug]

A run folder holds config.json, checkpoints/, metrics.jsonl and tensorboard/. Started
again with the same config it goes on where it was; a folder with another config is
refused, never overwritten. SIGTERM saves and exits. --help lists the config's keys.
"""

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
from dpjax import build, cameras, command_line, dataset, errors, run_folder, tasks
from dpjax.data import loader
from dpjax.errors import UserError
from dpjax.evaluation import rollout, scores
from dpjax.training import checkpoint, parallel
from dpjax.training import state as states
from dpjax.training.metrics import Metrics, averages, refuse_non_finite
from dpjax.training.signals import Signals, Stopped
from dpjax.training.step import train_step
from dpjax.training.validation import validate

CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run folder: new, or one to go on with.")

log = logging.getLogger("dpjax")


def due(every: int, before: int, after: int, total: int) -> bool:
    """Whether a multiple of `every`, or the end, was passed by this call."""
    return bool(every) and (before // every != after // every or after >= total)


def make_validation(config, spec, data):
    """`(params) -> metrics` on fixed held-out windows, or None where nothing is held out."""
    if not len(data.val.ends) or not config.val.every:
        return None
    policy = build.policy(build.sampling(config, steps=config.val.num_steps), None, spec)
    held_out = dataset.place(config, data.val, data.obs_keys)
    ids = np.unique(np.linspace(0, len(held_out) - 1, config.val.windows).astype(int))
    batch = first_batch(config, held_out, ids)
    rng = jax.random.key(config.data.val_seed)
    run = jax.jit(functools.partial(validate, policy, samples=config.val.samples))
    return lambda params: jax.device_get(run(params, rng, batch))


def first_batch(config, windows: loader.Windows, ids):
    """The windows ids [B] as the rows 0, 1, … of a batch."""
    rows = np.arange(len(ids), dtype=np.int32)
    observed = dataset.observed_steps(config)
    return loader.gather(windows.table, windows.inputs(ids), rows, observed)


def make_evaluation(config, spec, signals):
    """`(params) -> scores` of rollouts on the selection seeds, or None without any."""
    if not config.eval.every:
        return None
    task = tasks.get(config.task)
    task.make()  # a missing simulator is said now, not in an hour
    few = build.sampling(config, steps=config.eval.num_steps)
    act = build.actor(few, build.policy(few, None, spec), spec)

    def evaluate(params):
        def plan(rng, obs, previous=None):
            signals.stop_if_received()
            return act(params, rng, obs, previous)

        episodes = rollout.rollout(
            task,
            plan,
            seeds=range(task.selection_seeds, task.selection_seeds + config.eval.episodes),
            observed=config.horizon.obs,
            executed=config.horizon.act,
            num_envs=min(config.eval.num_envs, config.eval.episodes),
            rng=jax.random.key(config.seed),
            keep=(),
        )
        numbers = scores.summary(episodes)
        tqdm.write(f"{scores.line(numbers)} (selection seeds)")
        keys = ("score", "score_interval", "success", "success_interval", "episodes", "broken")
        return {key: numbers[key] for key in keys}

    return evaluate


def train(config: ConfigDict, workdir: Path) -> int:
    """Runs until config.train.steps; returns the exit code.

    All that can be refused comes before the run folder is touched.
    """
    build.check(config)
    data = dataset.read(config)
    spec = dataset.spec(data)
    policy = build.policy(config, dataset.normalizer(config, data.train), spec)
    tx, backbone = build.optimizer(config), cameras.pretrained(config)
    windows = dataset.place(config, data.train, data.obs_keys)
    signals = Signals()
    judges = (
        (config.val.every, make_validation(config, spec, data)),
        (config.eval.every, make_evaluation(config, spec, signals)),
    )
    held = run_folder.claim(workdir, config, spec)
    try:
        say_start(config, data, workdir)
        init_rng, step_rng = jax.random.split(jax.random.key(config.seed))
        example = first_batch(config, windows, np.zeros(1, np.int32))
        start = functools.partial(cameras.begin_with, backbone=backbone)
        create = lambda rng, batch: states.create(start(policy.init(rng, batch)), tx)
        like = jax.eval_shape(create, init_rng, example)
        state, meta = run_folder.resume(workdir, like, jax.local_device_count())
        if state is None:
            state = jax.jit(create)(init_rng, example)
        step = functools.partial(
            train_step, policy, tx, ema_power=config.ema.power, ema_max=config.ema.max
        )
        return loop(config, workdir, spec, signals, judges, meta, state, step, step_rng, windows)
    finally:
        signals.close()
        held.close()


def loop(config, workdir, spec, signals, judges, meta, state, step, rng, windows) -> int:
    """Calls of `train.steps_per_call` steps, and between them whatever is due."""
    devices, total = jax.local_devices(), config.train.steps
    i = first = meta.get("step", 0)
    owed = meta.get("owed", False)  # stopped before the judges had seen this step
    if first >= total and not owed:
        log.info("%s is finished: step %d of %d", workdir, first, total)
        return 0

    metrics = Metrics(workdir, first)
    if metrics.removed:
        log.info("%d entries of metrics.jsonl are done again", metrics.removed)
    checkpoints = checkpoint.Checkpoints(workdir, keep_best=config.save.keep_best)
    gather = functools.partial(loader.gather, num_observed=dataset.observed_steps(config))
    call = parallel.over_devices(step, gather, devices)
    state, table = parallel.replicate((state, windows.table), devices)
    trained_for, compiled = meta.get("seconds", metrics.seconds), None
    window, stop, timed, waited_for = [], None, 0.0, 0.0

    def make(first, count):
        size, seed = config.train.batch, config.seed
        return windows.inputs(loader.call_rows(len(windows), size, seed, first, count))

    def judge(before):
        """Validation and evaluation as far as they are due; the score, if there is one."""
        values = {}
        for every, run in judges:
            if run and due(every, before, i, total):
                signals.stop_if_received()
                values.update(run(parallel.unreplicate(state.ema)))
        if values:
            metrics.write(i, {**values, "seconds": trained_for})
        return values.get("score")

    def save(score, owed):
        extra = {"spec": spec._asdict(), "devices": len(devices)}
        extra.update(seconds=trained_for, owed=owed)
        one = parallel.unreplicate(state)
        checkpoints.save(one, config=config.to_dict(), score=score, extra=extra)

    slow = 0.5 if sys.stderr.isatty() else 30.0  # a log file wants fewer lines
    bar = tqdm(total=total, initial=first, unit="step", desc="train", mininterval=slow)
    try:
        if owed:
            save(judge(first - config.train.steps_per_call), owed=False)
        for n, inputs, waited in loader.feed(make, i, total, config.train.steps_per_call):
            start = time.perf_counter()
            state, sums = call(state, rng, table, inputs)
            took = time.perf_counter() - start + waited
            if compiled is None:
                compiled = took
                signals.listen()
            else:
                timed, waited_for = timed + took, waited_for + waited
            trained_for += took
            before, i = i, i + n
            refuse_non_finite(sums, before)
            bar.update(n)
            window.append((sums, n, None if before == first else took, waited))

            if signals.received or due(config.log.every, before, i, total):
                values = averages(window)
                bar.set_postfix(loss=f"{values['loss']:.4f}")
                metrics.write(i, {**values, "seconds": trained_for})
                window = []
            try:
                score, owed = judge(before), False
            except Stopped:
                score, owed = None, True
            stop = signals.received  # read once: what comes later waits for the next call
            last = stop or i >= total
            if last or score is not None or due(config.save.every, before, i, total):
                save(score, owed)
            if stop:
                break
    finally:
        bar.close()
        metrics.close()
        checkpoints.close()
    if stop:
        print(f"dpjax: {signal.Signals(stop).name}: saved step {i}", file=sys.stderr)
        return 128 + stop
    if compiled is not None:
        log.info(
            "trained for %.1f s, the first call (compiled) took %.1f s; waited %.2f %% of the "
            "time for input", trained_for, compiled, 100 * waited_for / max(timed, 1e-9)
        )
    return 0


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
    try:
        return train(CONFIG.value, Path(WORKDIR.value))
    except OSError as error:
        where = error.filename or WORKDIR.value
        raise UserError(f"{where}: {error.strerror or error}.") from error


def parse(argv):
    return command_line.parse(argv, __doc__, base.get_config().to_dict())


def command():
    errors.run(lambda: app.run(main, flags_parser=parse))


if __name__ == "__main__":
    command()
