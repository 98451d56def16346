"""Trains a policy.

    python -m dpjax.train --config configs/pusht_demo.py --workdir runs/demo \
        [--config.key=value …]

A run folder holds config.json, checkpoints/, metrics.jsonl and tensorboard/. Started
again with the same config it goes on where it was; a folder with another config is
refused, never overwritten. SIGTERM saves and exits.
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

from dpjax import build, errors, tasks
from dpjax.data import loader
from dpjax.errors import UserError
from dpjax.evaluation import rollout, scores
from dpjax.training import checkpoint, parallel
from dpjax.training import state as states
from dpjax.training.metrics import Metrics
from dpjax.training.step import train_step
from dpjax.training.validation import validate

CONFIG = config_flags.DEFINE_config_file("config", None, "A file of configs/.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run folder: new, or one to go on with.")

# Keys that may differ between a run and its resume: they change no weights.
FREE_TO_CHANGE = ("log", "val", "eval", "save", "sampler", "data.dir")

log = logging.getLogger("dpjax")


class Signals:
    """SIGTERM and SIGINT, remembered until the loop looks; the second one kills."""

    def __init__(self):
        self.received = None
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._receive)

    def _receive(self, number, _):
        signal.signal(number, signal.SIG_DFL)
        self.received = number


class Stopped(Exception):
    """A signal arrived while something long was under way."""


def due(every: int, before: int, after: int, total: int) -> bool:
    """Whether a multiple of `every`, or the end, was passed by this call."""
    return bool(every) and (before // every != after // every or after >= total)


def open_run(workdir: Path, config: ConfigDict, spec: build.Spec) -> None:
    """Makes the run folder, or checks that it holds a run of this config and data."""
    if not (workdir / "config.json").exists():
        if workdir.exists() and any(path.name != "lock" for path in workdir.iterdir()):
            raise UserError(f"--workdir {workdir} has files but no config.json: not a run folder.")
        build.write_config(workdir, config, spec)
        return
    saved, saved_spec = build.read_config(workdir)
    old, new = flatten(saved.to_dict()), flatten(config.to_dict())
    free = lambda key: any(key == name or key.startswith(name + ".") for name in FREE_TO_CHANGE)
    changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    wrong = [f"{key}: {old.get(key)} there, {new.get(key)} now" for key in changed if not free(key)]
    if saved_spec != spec:
        wrong.append(f"data: fingerprint {saved_spec.data} there, {spec.data} now")
    if wrong:
        raise UserError(
            f"--workdir {workdir} holds a run with another config ({'; '.join(wrong)}): "
            "give the same values, or another --workdir."
        )
    for key in changed:
        log.warning("%s is %s now, %s when the run began", key, new.get(key), old.get(key))


def flatten(tree: dict, prefix: str = "") -> dict:
    """{"a": {"b": 1}} -> {"a.b": 1}, tuples as lists."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def make_validation(config, policy, data):
    """`(params) -> metrics` on fixed held-out windows, or None where nothing is held out."""
    if not len(data.val.ends) or not config.val.every:
        return None
    held_out = build.table(config, data.val, data.obs_keys)
    num_windows = len(held_out.rows)
    ids = np.unique(np.linspace(0, num_windows - 1, config.val.windows).astype(int))
    batch = loader.gather(held_out, ids, np.arange(len(ids), dtype=np.int32), config.horizon.obs)
    rng = jax.random.key(config.data.val_seed)
    run = jax.jit(functools.partial(validate, policy, samples=config.val.samples))
    return lambda params: jax.device_get(run(params, rng, batch))


def make_evaluation(config, spec, signals):
    """`(params) -> scores` of rollouts on the selection seeds, or None without any."""
    if not config.eval.every:
        return None
    task = tasks.get(config.task)
    task.make()  # a missing simulator is said now, not in an hour
    few = build.sampling(config, steps=config.eval.num_steps)
    sample = jax.jit(build.policy(few, None, spec).sample)

    def evaluate(params):
        def plan(rng, obs, previous=None):
            if signals.received:
                raise Stopped
            return np.asarray(sample(params, rng, obs))

        episodes = rollout.rollout(
            task,
            plan,
            seeds=range(task.selection_seeds, task.selection_seeds + config.eval.episodes),
            observed=config.horizon.obs,
            executed=config.horizon.act,
            num_envs=min(config.eval.num_envs, config.eval.episodes),
            rng=jax.random.key(config.seed),
        )
        numbers = scores.summary(episodes)
        keys = ("score", "score_interval", "success", "success_interval", "episodes", "broken")
        return {key: numbers[key] for key in keys}

    return evaluate


def train(config: ConfigDict, workdir: Path) -> int:
    """Runs until config.train.steps; returns the exit code."""
    build.check(config)
    signals = Signals()
    data = build.data(config)
    spec = build.spec(data)
    workdir.mkdir(parents=True, exist_ok=True)
    held = checkpoint.lock(workdir)  # until this process ends
    open_run(workdir, config, spec)
    say_start(config, data, workdir)

    devices = jax.local_devices()
    normalizer = build.normalizer(config, data.train)
    policy = build.policy(config, normalizer, spec)
    tx = build.optimizer(config)
    table = build.table(config, data.train, data.obs_keys)
    num_windows = len(table.rows)
    validation = make_validation(config, policy, data)
    evaluation = make_evaluation(config, spec, signals)

    init_rng, step_rng = jax.random.split(jax.random.key(config.seed))
    example = loader.gather(table, np.zeros(1, int), np.zeros(1, np.int32), config.horizon.obs)
    state = states.create(jax.jit(policy.init)(init_rng, example), tx)
    state, first = resume(workdir, state)
    total = config.train.steps
    if first >= total:
        log.info("%s is finished: step %d of %d", workdir, first, total)
        return 0

    gather = functools.partial(loader.gather, num_observed=config.horizon.obs)
    step = functools.partial(
        train_step, policy, tx, ema_power=config.ema.power, ema_max=config.ema.max
    )
    call = parallel.over_devices(step, gather, devices)
    state, table = parallel.replicate((state, table), devices)
    metrics = Metrics(workdir, first)
    if metrics.removed:
        log.info("%d entries of metrics.jsonl after step %d are done again", metrics.removed, first)
    checkpoints = checkpoint.Checkpoints(workdir, keep_best=config.save.keep_best)
    extra = {"spec": spec._asdict()}
    save = functools.partial(checkpoints.save, config=config.to_dict(), extra=extra)

    trained_for, compiled, window = metrics.seconds, None, []
    bar = tqdm(total=total, initial=first, unit="step", smoothing=0.1, desc="train")
    i, score = first, None
    while i < total:
        n = min(config.train.steps_per_call, total - i)
        ids = loader.call_rows(num_windows, config.train.batch, config.seed, i, n)
        start = time.perf_counter()
        state, sums = call(state, step_rng, table, ids)
        took = time.perf_counter() - start
        if compiled is None:
            compiled = took
        trained_for += took
        before, i = i, i + n
        refuse_non_finite(sums, before)
        bar.update(n)
        window.append((sums, n, took))

        if due(config.log.every, before, i, total):
            values = averages(window)
            bar.set_postfix(loss=f"{values['loss']:.4f}")
            metrics.write(i, {**values, "seconds": trained_for})
            window = []
        try:
            if validation and due(config.val.every, before, i, total):
                values = validation(parallel.unreplicate(state.ema))
                metrics.write(i, {**values, "seconds": trained_for})
            score = None
            if evaluation and due(config.eval.every, before, i, total):
                values = evaluation(parallel.unreplicate(state.ema))
                score = values["score"]
                metrics.write(i, {**values, "seconds": trained_for})
                tqdm.write(f"step {i}: {scores.line(values)} (selection seeds)")
        except Stopped:
            pass  # the state is saved below; the evaluation is done again at the next one
        if score is not None or signals.received or due(config.save.every, before, i, total):
            save(parallel.unreplicate(state), score=score)
        if signals.received:
            break
    bar.close()
    checkpoints.close()
    metrics.close()
    held.close()
    if signals.received:
        name = signal.Signals(signals.received).name
        print(f"dpjax: {name}: saved step {i}", file=sys.stderr)
        return 128 + signals.received
    log.info("trained for %.1f s, the first call (compiled) took %.1f s", trained_for, compiled)
    return 0


def say_start(config: ConfigDict, data: build.Data, workdir: Path) -> None:
    """The resolved config and what it will be trained on."""
    print(json.dumps(config.to_dict(), indent=2))
    log.info(
        "%s: %d episodes to train on (%d steps), %d held out; %s",
        data.train.source,
        len(data.train.ends),
        data.train.ends[-1],
        len(data.val.ends),
        workdir,
    )


def resume(workdir: Path, state: states.TrainState):
    """The newest good checkpoint in place of a fresh state, and its step."""
    restored, said = checkpoint.restore_latest(workdir, jax.device_get(state))
    for text in said:
        log.warning(text)
    if restored is None:
        return state, 0
    first = int(restored.step)
    log.info("going on from step %d of %s", first, workdir)
    return restored, first


def refuse_non_finite(sums: dict, first: int) -> None:
    """Stops the run where a loss or a gradient is not a number; nothing is saved."""
    bad = np.flatnonzero(~(np.isfinite(sums["loss"]) & np.isfinite(sums["grad_norm"])))
    if len(bad):
        raise UserError(
            f"step {first + bad[0] + 1}: the loss is {sums['loss'][bad[0]]} and the gradient's "
            f"norm {sums['grad_norm'][bad[0]]}; stopped, the last good checkpoint is kept. "
            "Lower config.optim.lr, or look for outliers in the data."
        )


def averages(window: list) -> dict:
    """Means of the metrics over the calls since the last entry, and the speed."""
    join = lambda key: float(np.concatenate([sums[key] for sums, _, _ in window]).mean())
    steps, seconds = sum(n for _, n, _ in window), sum(took for _, _, took in window)
    values = {key: join(key) for key in window[0][0]}
    return {**values, "steps_per_second": steps / seconds}


def main(_):
    logging.basicConfig(level=logging.INFO, format="dpjax: %(message)s", force=True)
    for name in ("absl", "jax", "orbax"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if CONFIG.value is None or WORKDIR.value is None:
        raise UserError("give --config (a file of configs/) and --workdir (the run folder).")
    return train(CONFIG.value, Path(WORKDIR.value))


def parse(argv):
    """absl's flags; what it refuses becomes one line."""
    try:
        return flags.FLAGS(argv)
    except (AttributeError, KeyError) as error:
        raise UserError(f"no such key: {error}") from error
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(str(error)) from error


if __name__ == "__main__":
    errors.run(lambda: app.run(main, flags_parser=parse))
