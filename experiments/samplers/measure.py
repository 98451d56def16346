"""Time, error and diversity of plans, all of the same looks.

A look is what the second plan of an episode is given: the observations after the actions
of the first one, which DDPM-100 made, and that plan moved to the present, from which a
warm start begins. At an episode's first look there is nothing to begin with.
"""

import time

import jax
import numpy as np
from tqdm import tqdm

from dpjax import tasks
from dpjax.core.types import example_keys
from dpjax.inference.controller import Controller
from dpjax.runs import run as run_lib
from experiments.samplers.rows import Row

CHUNKS, OBSERVATIONS, TURNS, TIMED = 32, 32, 6, 5


def look(task, env, run: run_lib.Run, seed: int) -> tuple[dict, np.ndarray]:
    """{name: [1, To, ...]} and [1, Tp, Da]: what an episode's second plan is given."""
    horizon, given = run.config.horizon, []

    def plan(key, obs, previous):
        given.append((obs, previous))
        return run.sample_actions(key, obs)

    controller = Controller(plan, observed=horizon.obs, executed=horizon.act)
    controller.reset(jax.random.key(seed))
    raw = task.simulator.reset(env, seed)
    for _ in range(horizon.act):
        raw, *_ = task.simulator.step(env, controller.act(task.observe(raw)))
    controller.act(task.observe(raw))
    return given[1]


def looks(run: run_lib.Run) -> tuple[dict, np.ndarray]:
    """{name: [OBSERVATIONS, To, ...]} and [OBSERVATIONS, Tp, Da] of selection seeds."""
    task = tasks.get(run.config.task)
    env, first = task.simulator.make(), task.simulator.selection_seeds
    seen = [look(task, env, run, seed) for seed in range(first, first + OBSERVATIONS)]
    getattr(env, "close", lambda: None)()
    return jax.tree.map(lambda *rows: np.concatenate(rows), *seen)


def chunks(run: run_lib.Run, seen, seed: int) -> np.ndarray:
    """[CHUNKS, OBSERVATIONS, Ta, Da]: what would be executed."""
    first = run.config.horizon.obs - 1
    keys = example_keys(jax.random.key(seed), np.arange(CHUNKS * OBSERVATIONS))
    keys = keys.reshape(CHUNKS, OBSERVATIONS)
    drawn = np.stack([run.sample_actions(key, *seen) for key in keys])
    return drawn[:, :, first : first + run.config.horizon.act]


def timed(runs: dict[Row, run_lib.Run], seen) -> dict[Row, dict]:
    """{row: ms, ms_first} of one plan at batch 1; in turns, so that noise hits all.

    A plan gets its key made, as in control, where the same key makes many.
    """
    one, took = jax.tree.map(lambda x: x[:1], seen), {row: [] for row in runs}
    for run in runs.values():
        run.warm_up()
    for key in jax.random.split(jax.random.key(0), TURNS):
        for row, run in runs.items():
            took[row].append([])
            for _ in range(TIMED + 1):
                start = time.perf_counter()
                run.sample_actions(key, *one)
                took[row][-1].append((time.perf_counter() - start) * 1e3)
    middle = lambda x: float(np.median(x))
    turns = {row: np.array(x) for row, x in took.items()}
    return {row: {"ms": middle(x[:, 1:]), "ms_first": middle(x[:, 0])} for row, x in turns.items()}


def measured(runs: dict[Row, run_lib.Run]) -> dict[Row, dict]:
    """{row: ms, ms_first, speedup, error, diversity}; the first row is the reference.

    Every plan is handed the one before it; only those with a warm start look at it.
    """
    reference = next(iter(runs))
    seen = looks(runs[reference])
    wanted = chunks(runs[reference], seen, seed=1).mean(0)
    took, found = timed(runs, seen), {}
    for row, run in tqdm(runs.items(), desc="chunks", unit="sampler"):
        drawn = chunks(run, seen, seed=0)
        found[row] = {
            **took[row],
            "speedup": took[reference]["ms"] / took[row]["ms"],
            "error": float(np.sqrt(np.mean((drawn.mean(0) - wanted) ** 2))),
            "diversity": float(drawn.std(0).mean()),
        }
    return found
