"""Time, error and diversity of action chunks, all sampled for the same situations.

A situation is the input of an episode's second chunk: the observations after the executed actions
of the first chunk, which DDPM-100 sampled, and the rest of that chunk, from which a warm start
begins. An episode's first chunk has no previous one.
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

CHUNKS = 32  # per situation
SITUATIONS = 32
TURNS = 6  # of each sampler
TIMED = 5  # chunks per turn, after a first one


def situation(task, env, run: run_lib.Run, seed: int) -> tuple[dict, np.ndarray]:
    """The input of an episode's second chunk: obs {name: [1, To, ...]} and previous [1, Tp, Da]."""
    horizon = run.config.horizon
    inputs = []

    def record(key, obs, previous):
        inputs.append((obs, previous))
        return run.sample_actions(key, obs)

    controller = Controller(record, observed=horizon.obs, executed=horizon.act)
    controller.reset(jax.random.key(seed))
    raw = task.simulator.reset(env, seed)
    # After Ta steps the first chunk is used up, and the next action needs a second one.
    for _ in range(horizon.act):
        raw, *_ = task.simulator.step(env, controller.act(task.observe(raw)))
    controller.act(task.observe(raw))
    return inputs[1]


def situations(run: run_lib.Run) -> tuple[dict, np.ndarray]:
    """{name: [SITUATIONS, To, ...]} and [SITUATIONS, Tp, Da], of selection seeds."""
    task = tasks.get(run.config.task)
    env = task.simulator.make()
    first = task.simulator.selection_seeds
    seeds = range(first, first + SITUATIONS)
    inputs = [situation(task, env, run, seed) for seed in seeds]
    getattr(env, "close", lambda: None)()
    return jax.tree.map(lambda *arrays: np.concatenate(arrays), *inputs)


def executed_actions(run: run_lib.Run, inputs, seed: int) -> np.ndarray:
    """[CHUNKS, SITUATIONS, Ta, Da]: the part of each chunk that would be executed."""
    first = run.config.horizon.obs - 1
    keys = example_keys(jax.random.key(seed), np.arange(CHUNKS * SITUATIONS))
    keys = keys.reshape(CHUNKS, SITUATIONS)
    actions = np.stack([run.sample_actions(key, *inputs) for key in keys])
    return actions[:, :, first : first + run.config.horizon.act]


def timed(runs: dict[Row, run_lib.Run], inputs) -> dict[Row, dict]:
    """{row: ms, ms_first} of one chunk at batch 1; in turns, so that disturbances hit all rows.

    As in control, one key is passed: making the keys of the examples from it is timed too.
    """
    one = jax.tree.map(lambda x: x[:1], inputs)
    milliseconds = {row: [] for row in runs}  # [TURNS, 1 + TIMED] each
    for run in runs.values():
        run.warm_up()
    for key in jax.random.split(jax.random.key(0), TURNS):
        for row, run in runs.items():
            turn = []
            for _ in range(TIMED + 1):
                start = time.perf_counter()
                run.sample_actions(key, *one)
                turn.append((time.perf_counter() - start) * 1e3)
            milliseconds[row].append(turn)
    times = {row: np.array(turns) for row, turns in milliseconds.items()}
    return {
        row: {"ms": float(np.median(x[:, 1:])), "ms_first": float(np.median(x[:, 0]))}
        for row, x in times.items()
    }


def measure(runs: dict[Row, run_lib.Run]) -> dict[Row, dict]:
    """{row: ms, ms_first, speedup, error, diversity}; the first row is the reference.

    Every chunk is given a previous one; only rows with a warm start use it.
    """
    reference = next(iter(runs))
    inputs = situations(runs[reference])
    # Other noise than that of the rows, so that the reference's error is not zero.
    expected = executed_actions(runs[reference], inputs, seed=1).mean(0)
    times = timed(runs, inputs)
    numbers = {}
    for row, run in tqdm(runs.items(), desc="chunks", unit="sampler"):
        actions = executed_actions(run, inputs, seed=0)
        numbers[row] = {
            **times[row],
            "speedup": times[reference]["ms"] / times[row]["ms"],
            "error": float(np.sqrt(np.mean((actions.mean(0) - expected) ** 2))),
            "diversity": float(actions.std(0).mean()),
        }
    return numbers
