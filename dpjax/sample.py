"""Samples action chunks for one observation, and measures how long that takes.

python -m dpjax.sample --run runs/demo [--observation obs.json] [--batch 1]
"""

import argparse
from collections.abc import Sequence
import json
import logging
from pathlib import Path
import time

import jax
import numpy as np

from dpjax import tasks
from dpjax.config import build, flags
from dpjax.core.errors import UserError
from dpjax.core.spec import Spec
from dpjax.data import images
from dpjax.runs import run as run_lib


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command-line arguments, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m dpjax.sample", description="Sample action chunks from one observation."
    )
    add = parser.add_argument
    add("--run", required=True, help="a run folder, or the name of a policy such as pusht_demo")
    add(
        "--observation",
        help='JSON of the raw columns of one step, {"state": [..]}, or of To steps; default: the '
        "first observation of --seed in the task's simulator",
    )
    add("--seed", type=int, help="of the simulator and of the noise")
    add("--batch", type=int, default=1, help="action chunks that are sampled at once")
    add("--repeat", type=int, default=20, help="timed calls")
    add("--steps", type=int, help="sampling steps S (default: the run's)")
    add("--sampler", choices=sorted(build.SAMPLERS), help="default: the run's")
    args = parser.parse_args(argv)
    # argparse has checked types; these are the ranges.
    for name in ("batch", "repeat"):
        if getattr(args, name) < 1:
            raise UserError(f"--{name} {getattr(args, name)} must be at least 1.")
    return args


def observation(args: argparse.Namespace, task: tasks.Task, spec: Spec, observed: int) -> dict:
    """{name: [batch, To, ...]}: what the policy observes, the same in every example.

    Raises UserError if --observation does not fit the task, or has other sizes than the run.
    """
    # 1. Raw columns of one step or of To steps, {name: [D] or [To, D]}; images have two axes more.
    # Task `custom` names no columns: it observes what the run was trained on.
    names = task.columns or tuple(spec.observations)
    columns = _read_columns(args, task, names) if args.observation else _simulated(args, task)
    columns = {key: columns[key] for key in names}
    # JSON has no uint8: pixels were read as float32.
    for key in columns.keys() & spec.cameras.keys():
        pixels = images.as_pixels(columns[key])
        if pixels is None:
            raise UserError(f"--observation: {key}: pixels are whole numbers from 0 to 255.")
        columns[key] = pixels
    # 2. A batch with To steps in each example. A single step is repeated, as at the start of an
    # episode.
    for key, x in columns.items():
        dims = 3 if key in spec.cameras else 1  # the axes of a single step
        steps = x if x.ndim > dims else np.repeat(x[None], observed, axis=0)
        if len(steps) != observed or not np.isfinite(steps).all():
            raise UserError(
                f"--observation: {key} has shape {x.shape}; expected one step, or "
                f"To = {observed} steps, of finite numbers."
            )
        columns[key] = np.repeat(steps[None], args.batch, axis=0)  # [batch, To, ...]
    # 3. The policy's observation of these columns, which must have the sizes of the training.
    try:
        obs = task.observe(columns)
        sizes = {key: x.shape[2:] if key in spec.cameras else x.shape[-1] for key, x in obs.items()}
    except (ValueError, IndexError) as error:  # numpy's, for columns of another size
        raise UserError(f"--observation: {task.name} cannot read it ({error}).") from None
    if sizes != spec.observations:
        raise UserError(f"--observation: sizes {sizes}, the run wants {spec.observations}.")
    return obs


def _read_columns(args: argparse.Namespace, task: tasks.Task, names: Sequence[str]) -> dict:
    """The raw columns of --observation, as float32."""
    path = Path(args.observation)
    if not path.exists():
        raise UserError(f"--observation {path}: there is no such file.")
    try:
        content = json.loads(path.read_text())
        columns = {key: np.asarray(x, np.float32) for key, x in content.items()}
    # Not JSON, not numbers, not an object.
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a JSON object of numbers ({error}).") from None
    missing = [key for key in names if key not in columns]
    if missing:
        raise UserError(f"{path}: lacks {missing}; {task.name} observes {list(names)}.")
    return columns


def _simulated(args: argparse.Namespace, task: tasks.Task) -> dict:
    """The raw columns of the first step of an episode in the simulator."""
    simulator = tasks.require_simulator(task, instead="give an --observation")
    # Not one of the official seeds, which are for final results only.
    seed = simulator.selection_seeds if args.seed is None else args.seed
    return simulator.reset(simulator.make(), seed)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = arguments(argv)
    logging.basicConfig(level=logging.WARNING, format="dpjax: %(message)s", force=True)
    # 1. Load the policy, and get an observation for it.
    run = run_lib.load(args.run, sampler=args.sampler, steps=args.steps)
    obs = observation(args, run.task, run.spec, run.config.horizon.obs)

    # 2. Time the calls, each with its own noise: --repeat calls, and one more before them.
    keys = jax.random.split(jax.random.key(args.seed or 0), args.repeat + 1)
    compile_seconds = run.warm_up([args.batch])
    milliseconds = []
    for key in keys:
        start = time.perf_counter()
        actions = run.sample_actions(key, obs)
        milliseconds.append((time.perf_counter() - start) * 1e3)
    # The first call does not count. It is slower, since it touches the memory of its temporaries
    # for the first time.
    steady = np.array(milliseconds[1:])

    # 3. Print the steps of the first chunk that a robot would execute, then the times. Step To - 1
    # of a chunk belongs to the present, and Ta steps are executed from there.
    np.set_printoptions(precision=1, suppress=True, floatmode="fixed")
    first = run.config.horizon.obs - 1
    last = first + run.config.horizon.act
    print(f"actions {actions.shape}, of which steps {first} to {last - 1} are executed")
    print(f"the first chunk's:\n{actions[0, first:last]}")
    print(
        f"{run.config.sampler.name}, {run.config.sampler.num_steps} steps, batch {args.batch}: "
        f"median {np.median(steady):.1f} ms, 95 % {np.quantile(steady, 0.95):.1f} ms over "
        f"{args.repeat} calls, the first {milliseconds[0]:.1f} ms; compilation "
        f"{compile_seconds:.1f} s before"
    )
    return 0


if __name__ == "__main__":
    flags.run(main)
