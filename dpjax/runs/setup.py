"""Prepares a training: data, policy, run folder and compiled step, but not yet the state."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict
import numpy as np
import optax

from dpjax.config import build, cameras, checks, dataset, sources
from dpjax.core.normalizer import Normalizer
from dpjax.core.types import Array, Batch, Params
from dpjax.data import loader
from dpjax.policies.base import Policy
from dpjax.runs import directory, init_from, steps
from dpjax.runs.multi_seed_run import MultiSeedRun
from dpjax.runs.training_run import TrainingRun
from dpjax.training import parallel
from dpjax.training import state as states
from dpjax.training.signals import Signals
from dpjax.training.state import TrainState


class Setup(NamedTuple):
    """All that a training needs except its state.

    config: the complete config, with the columns of the data.
    data: the episodes to train on, and those held out.
    normalizer: the units of the data.
    windows: the windows of the training episodes, from which batches are gathered.
    run: the run folder with its writers, and the evaluators.
    strategy: how the devices share the work.
    initial_state: makes the state before the first step from a random key.
    call: a compiled program of several optimizer steps.
    """

    config: ConfigDict
    data: dataset.Data
    normalizer: Normalizer
    windows: loader.Windows
    run: TrainingRun | MultiSeedRun
    strategy: parallel.Strategy
    initial_state: Callable[[Array], TrainState]
    call: parallel.Call


def set_up(config: ConfigDict, workdir: Path, signals: Signals, profile: bool) -> Setup:
    """Checks the config, reads the data, and builds all that the training needs."""
    # 1. The config: what can be checked before the data is read.
    config = sources.resolved(config, directory.begun(workdir))
    checks.check(config)
    steps.check_devices(config.train.batch, config.train.accumulate, jax.device_count())
    # A profile needs a third call, and the training may be too short for one.
    if profile:
        steps.check_profile(config.train.steps, config.train.steps_per_call)

    # 2. The data: sizes, units and windows.
    data = dataset.read(config)
    spec = dataset.spec(data)
    normalizer = dataset.normalizer(config, data.train)
    windows = dataset.train_windows(config, data)

    # 3. The policy, its optimizer, and the run folder. No file is written yet (`claim`).
    policy = build.policy(config, normalizer, spec)
    optimizer = build.optimizer(config)
    strategy = parallel.STRATEGIES[config.train.parallel](parallel.all_devices())
    run_type = TrainingRun if config.train.seeds == 1 else MultiSeedRun
    run = run_type(config, workdir, spec, strategy, signals)

    # 4. The initial weights. They come from another run if init_from names one; a run with
    # checkpoints does not need them.
    example = dataset.batch_of(windows, np.zeros(1, np.int32))
    start = None
    if config.train.init_from and not run.has_checkpoints():
        shapes = jax.eval_shape(policy.init, jax.random.key(0), example)
        start = init_from.initial_params(config, spec, shapes, data.train.columns)
    # Otherwise they are random, but for the pretrained ResNet of the cameras.
    backbone = cameras.pretrained(config.encoder) if config.cameras else None
    initial_state = state_function(policy, optimizer, backbone, example, start)

    # 5. The compiled step. `vectorize` turns it into one for several trainings side by side.
    step = steps.step_function(
        policy, optimizer, config.ema, config.optim.grad_clip, config.train.accumulate
    )
    step, gather = run.vectorize(step, steps.gather_function(windows))
    call = steps.compiled_call(strategy, step, gather, has_cameras=bool(config.cameras))
    if profile:
        call = steps.profiled(call, workdir / "profile")
    return Setup(config, data, normalizer, windows, run, strategy, initial_state, call)


def state_function(
    policy: Policy,
    optimizer: optax.GradientTransformation,
    backbone: Params | None,
    example: Batch,
    start: Params | None,
) -> Callable[[Array], TrainState]:
    """A compiled function `initial_state(key)` that returns the state before the first step.

    backbone: the params of a pretrained ResNet for the cameras' encoders, or None.
    example: a batch with one example, for the shapes of the data.
    start: the params, if they come from another run, or None. With them the key has no effect.
    """

    # `example` and `start` are arguments, since XLA would embed closed-over arrays in the program
    # as constants.
    @jax.jit
    def create(key, example, start):
        params = start or cameras.with_backbone(policy.init(key, example), backbone)
        return states.create(params, optimizer)

    return lambda key: create(key, example, start)
