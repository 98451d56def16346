"""One cell of the table: episodes of Push-T with a method and a delay."""

import jax
import numpy as np

from dpjax import tasks
from dpjax.config import build
from dpjax.evaluation import rollout, scores
from dpjax.runs import run as run_lib
from dpjax.runs.demonstrators import padded
from experiments.delays.methods import METHODS

NUM_ENVS = 50


def load(name: str, agree: str) -> run_lib.Run:
    """The run with an agreement of its chunks."""
    run = run_lib.load(name)
    config = build.with_sampling(run.config, agree=agree)
    policy = build.policy(config, run.params["normalizer"], run.spec)
    compiled = build.compiled_policy(config, policy, run.spec)
    return run._replace(policy=policy, compiled=compiled, config=config)


def measure(name: str, method_name: str, delay: int, episodes: int) -> dict:
    """The row of a cell, ready for JSON, with a score and a success per seed."""
    method = METHODS[method_name]
    run = load(name, method.agree)
    simulator = tasks.require_simulator(run.task)
    horizon = run.config.horizon
    sample = run.sample_actions
    if method.wrap:
        sample = method.wrap(sample, horizon.obs, delay)
    run.warm_up([NUM_ENVS])
    ended = rollout.rollout(
        simulator,
        run.task.observe,
        padded(sample, NUM_ENVS),
        seeds=range(simulator.selection_seeds, simulator.selection_seeds + episodes),
        observed=horizon.obs,
        executed=horizon.act + (delay if method.waits else 0),
        delay=0 if method.waits else delay,
        num_envs=NUM_ENVS,
        rng=jax.random.key(run.config.seed),
        keep=(),
        label=f"{method_name}, d = {delay}",
    )
    period = horizon.act + (delay if method.waits else 0)
    first = period if method.waits else horizon.act  # the first step of the second chunk
    return {
        "method": method_name,
        "delay": delay,
        **scores.summarize(ended),
        "seam": float(np.mean([seam(e.actions, first, period) for e in ended])),
        "second_difference": float(np.mean([second_difference(e.actions) for e in ended])),
        "by_seed": {e.seed: [round(e.score, 6), bool(e.success)] for e in ended},
    }


def seam(actions: np.ndarray, first: int, period: int) -> float:
    """Mean distance, in px, between the last action of a chunk and the first of the next one."""
    steps = np.arange(first, len(actions), period)
    if not len(steps):
        return 0.0
    return float(np.linalg.norm(actions[steps] - actions[steps - 1], axis=1).mean())


def second_difference(actions: np.ndarray) -> float:
    """Mean length of a_(t+1) - 2 a_t + a_(t-1), in px: how jerky the targets are."""
    return float(np.linalg.norm(np.diff(actions, 2, axis=0), axis=1).mean())


def paired(row: dict, other: dict) -> dict:
    """Mean of row minus other over the same seeds, in score and success, with 95 % intervals."""
    seeds = sorted(set(row["by_seed"]) & set(other["by_seed"]))
    a = np.array([row["by_seed"][seed] for seed in seeds], float)
    b = np.array([other["by_seed"][seed] for seed in seeds], float)
    difference = a - b
    return {
        name: {"mean": float(x.mean()), "interval": list(scores.bootstrap(x))}
        for name, x in zip(("score", "success"), difference.T, strict=True)
    }
