"""Evaluators that score a run during training: validation, and rollouts in the simulator."""

from collections.abc import Callable, Mapping
import functools
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict
import numpy as np
from tqdm import tqdm

from dpjax import tasks
from dpjax.config import build, dataset
from dpjax.core.spec import Spec
from dpjax.core.types import Params
from dpjax.evaluation import rollout, scores
from dpjax.evaluation.imitation import validate
from dpjax.ops.transposed import inference_params
from dpjax.training.signals import Signals

# The numbers of `scores.summarize` that are written to metrics.jsonl.
REPORTED = ("score", "score_interval", "success", "success_interval", "episodes", "broken")


class Evaluator(NamedTuple):
    """A function that scores the parameters every `every` steps, and at the end.

    every: a number of steps; 0 for never.
    run: `(params) -> {name: number}`, or None if there is nothing to evaluate.
    """

    every: int
    run: Callable[[Params], Mapping[str, Any]] | None


def is_due(every: int, before: int, after: int, total: int) -> bool:
    """Whether a call from step `before` to step `after` passed a multiple of `every`, or the end.

    total: the number of steps of the training. `every` = 0 means never.
    """
    # The quotient grows when a multiple is passed, even in the middle of a call.
    return bool(every) and (before // every != after // every or after >= total)


def evaluators(
    config: ConfigDict, spec: Spec, data: dataset.Data, signals: Signals
) -> list[Evaluator]:
    """The evaluators that the config asks for and that the data allows."""
    return [
        Evaluator(config.val.every, validation(config, spec, data)),
        Evaluator(config.eval.every, rollouts(config, spec, signals)),
    ]


def validation(config: ConfigDict, spec: Spec, data: dataset.Data) -> Callable | None:
    """`(params) -> metrics` on held-out windows; None if no episode is held out."""
    if not len(data.val.ends) or not config.val.every:
        return None
    # The policy, with fewer sampling steps than in the final evaluation.
    few_steps = build.with_sampling(config, steps=config.val.num_steps)
    policy = build.policy(few_steps, None, spec)
    # The windows, evenly spread. They and the noise are the same each time, so that the numbers
    # differ by the weights only.
    held_out = dataset.val_windows(config, data)
    ids = np.unique(np.linspace(0, len(held_out) - 1, config.val.windows).astype(int))
    batch = dataset.batch_of(held_out, ids)
    key = jax.random.key(config.data.val_seed)
    run = jax.jit(functools.partial(validate, policy, samples=config.val.samples))
    # Without a simulator, checkpoints are ranked by their error on held-out demonstrations.
    is_ranking = tasks.get(config.task).simulator is None

    def evaluate(params: Params) -> dict[str, Any]:
        values = jax.device_get(run(params, key, batch))
        if is_ranking:
            # A smaller error ranks higher.
            values["rank"] = -float(values["val_action_error"])
        return values

    return evaluate


def rollouts(config: ConfigDict, spec: Spec, signals: Signals) -> Callable | None:
    """`(params) -> scores` of rollouts on the selection seeds; None if config.eval.every is 0.

    The function raises Stopped when a signal arrives.
    """
    if not config.eval.every:
        return None
    # 1. The simulator. It is created once now, so that a missing library is reported at the start
    # and not after an hour.
    task = tasks.get(config.task)
    simulator = tasks.require_simulator(task, instead="set config.eval.every=0")
    simulator.make()
    # 2. The policy, with fewer sampling steps than in the final evaluation. One compiled program
    # serves all rollouts of the run.
    few_steps = build.with_sampling(config, steps=config.eval.num_steps)
    compiled = build.compiled_policy(few_steps, build.policy(few_steps, None, spec), spec)
    kernels = config.compute.kernels
    # 3. The episodes. Checkpoints are selected on these seeds, so they are not the official ones.
    seeds = range(simulator.selection_seeds, simulator.selection_seeds + config.eval.episodes)
    options = dict(
        label=task.name,
        seeds=seeds,
        observed=config.horizon.obs,
        executed=config.horizon.act,
        num_envs=min(config.eval.num_envs, config.eval.episodes),
        rng=jax.random.key(config.seed),
        keep=(),  # no columns of the episodes: only their scores count
    )

    def evaluate(params: Params) -> dict[str, Any]:
        # The weights change from one evaluation to the next, so they are laid out anew.
        params = inference_params(params, [jax.default_backend()], kernels)
        compiled.compile(params, [options["num_envs"]])

        def sample_actions(key, obs, previous=None, committed=None):
            # A rollout takes minutes, so signals are checked before every chunk.
            signals.stop_if_received()
            return compiled(params, key, obs, previous, committed)

        episodes = rollout.rollout(simulator, task.observe, sample_actions, **options)
        numbers = scores.summarize(episodes)
        tqdm.write(f"{scores.line(numbers)} (selection seeds)")
        return {name: numbers[name] for name in REPORTED}

    return evaluate
