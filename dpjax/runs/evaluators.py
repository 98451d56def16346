"""What judges a run while it trains: validation, and rollouts on the selection seeds."""

from collections.abc import Callable, Mapping
import functools
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from dpjax import tasks
from dpjax.config import build, dataset
from dpjax.core.types import Batch, Params
from dpjax.data import loader
from dpjax.evaluation import rollout, scores
from dpjax.evaluation.imitation import validate
from dpjax.ops import transposed
from dpjax.training.signals import Signals


class Evaluator(NamedTuple):
    """`run(params) -> {name: number}`, every so many steps and at the end; 0 is never."""

    every: int
    run: Callable[[Params], Mapping] | None


def due(every: int, before: int, after: int, total: int) -> bool:
    """Whether a multiple of `every`, or the end, was passed by this call."""
    return bool(every) and (before // every != after // every or after >= total)


def evaluators(config, spec, data, signals: Signals) -> list[Evaluator]:
    """The judges that the config wants and the data allows."""
    return [
        Evaluator(config.val.every, validation(config, spec, data)),
        Evaluator(config.eval.every, evaluation(config, spec, signals)),
    ]


def validation(config, spec, data):
    """`(params) -> metrics` on fixed held-out windows, or None where nothing is held out."""
    if not len(data.val.ends) or not config.val.every:
        return None
    policy = build.policy(build.with_sampling(config, steps=config.val.num_steps), None, spec)
    held_out = dataset.val_windows(config, data)
    ids = np.unique(np.linspace(0, len(held_out) - 1, config.val.windows).astype(int))
    batch = first_batch(config, held_out, ids)
    rng = jax.random.key(config.data.val_seed)
    run = jax.jit(functools.partial(validate, policy, samples=config.val.samples))
    # Without rollouts the checkpoints are ranked by their error on held-out demonstrations.
    alone = tasks.get(config.task).simulator is None

    def judge(params):
        values = jax.device_get(run(params, rng, batch))
        return {**values, "rank": -float(values["val_action_error"])} if alone else values

    return judge


def first_batch(config, windows: loader.Windows, ids) -> Batch:
    """The windows ids [B] as the rows 0, 1, … of a batch."""
    rows = np.arange(len(ids), dtype=np.int32)
    observed = dataset.observed_steps(config)
    return loader.gather(windows.table, windows.inputs(ids), rows, observed)


def evaluation(config, spec, signals: Signals):
    """`(params) -> scores` of rollouts on the selection seeds, or None without any."""
    if not config.eval.every:
        return None
    task = tasks.get(config.task)
    simulator = tasks.require_simulator(task, instead="set config.eval.every=0")
    simulator.make()  # a missing simulator is said now, not in an hour
    few = build.with_sampling(config, steps=config.eval.num_steps)
    act = build.compiled_policy(few, build.policy(few, None, spec), spec)

    num_envs = min(config.eval.num_envs, config.eval.episodes)
    first = simulator.selection_seeds

    def evaluate(params):
        params = transposed.inference_params(params, [jax.default_backend()])
        act.compile(params, [num_envs])

        def plan(rng, obs, previous=None):
            signals.stop_if_received()
            return act(params, rng, obs, previous)

        episodes = rollout.rollout(
            simulator,
            task.observe,
            plan,
            label=task.name,
            seeds=range(first, first + config.eval.episodes),
            observed=config.horizon.obs,
            executed=config.horizon.act,
            num_envs=num_envs,
            rng=jax.random.key(config.seed),
            keep=(),
        )
        numbers = scores.summarize(episodes)
        tqdm.write(f"{scores.line(numbers)} (selection seeds)")
        keys = ("score", "score_interval", "success", "success_interval", "episodes", "broken")
        return {key: numbers[key] for key in keys}

    return evaluate
