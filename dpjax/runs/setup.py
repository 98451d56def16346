"""Everything that a training needs but its state: data, policy, run folder, compiled step."""

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
from dpjax.runs import init_from, steps
from dpjax.runs.multi_seed_run import MultiSeedRun
from dpjax.runs.training_run import TrainingRun
from dpjax.training import parallel
from dpjax.training import state as states
from dpjax.training.signals import Signals
from dpjax.training.state import TrainState


class Setup(NamedTuple):
    """What a training consists of, beside its state.

    config: complete, with the columns of the data. run: the run folder and the evaluators.
    windows: of the training episodes; batches are gathered from them.
    initial_state: makes the state before the first step from a random key.
    call: several optimizer steps, compiled.
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
    """Checks the config, reads the data, and builds everything but the state."""
    config = sources.resolved(config)
    checks.check(config)
    steps.check_devices(config.train.batch, config.train.accumulate, jax.device_count())
    # A trace that would never be written is refused as early as the rest.
    if profile:
        steps.check_profile(config.train.steps, config.train.steps_per_call)

    # The data: its windows, units and sizes.
    data = dataset.read(config)
    spec = dataset.spec(data)
    normalizer = dataset.normalizer(config, data.train)
    windows = dataset.train_windows(config, data)

    # The policy, and the run that it is trained in.
    policy = build.policy(config, normalizer, spec)
    optimizer = build.optimizer(config)
    strategy = parallel.STRATEGIES[config.train.parallel](parallel.all_devices())
    run_type = TrainingRun if config.train.seeds == 1 else MultiSeedRun
    run = run_type(config, workdir, spec, strategy, signals)

    # Where its weights start: as those of another run, or at random.
    example = dataset.batch_of(windows, np.zeros(1, np.int32))
    start = None
    if config.train.init_from and not run.has_checkpoints():
        shapes = jax.eval_shape(policy.init, jax.random.key(0), example)
        start = init_from.initial_params(config, spec, shapes, data.train.columns)
    backbone = cameras.pretrained(config.encoder) if config.cameras else None
    initial_state = state_function(policy, optimizer, backbone, example, start)

    # The compiled step, for all trainings of the run at once.
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
    """`initial_state(key)`, compiled: the state before the first step.

    backbone: a pretrained ResNet for the cameras' encoders. example: a batch of one, for shapes.
    start: the weights, if they come from another run; the key is not used then.
    """

    @jax.jit
    def create(key, example, start):
        params = start or cameras.with_backbone(policy.init(key, example), backbone)
        return states.create(params, optimizer)

    return lambda key: create(key, example, start)
