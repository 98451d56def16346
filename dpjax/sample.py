"""One observation in, action chunks out, timed.

python -m dpjax.sample --run runs/demo [--observation obs.json] [--batch 1]
"""

import argparse
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


def arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dpjax.sample", description="Sample action chunks from one observation."
    )
    parser.add_argument("--run", required=True, help="run folder that dpjax.train made")
    parser.add_argument(
        "--observation",
        help='JSON of the raw columns, {"state": [..]} or To of them; default: the first '
        "observation of --seed in the task's simulator",
    )
    parser.add_argument("--seed", type=int, help="of the simulator and of the noise")
    parser.add_argument("--batch", type=int, default=1, help="chunks sampled at once")
    parser.add_argument("--repeat", type=int, default=20, help="timed calls")
    parser.add_argument("--steps", type=int, help="sampling steps S (default: the run's)")
    parser.add_argument("--sampler", choices=sorted(build.SAMPLERS), help="default: the run's")
    given = parser.parse_args(argv)
    for name in ("batch", "repeat"):
        if getattr(given, name) < 1:
            raise UserError(f"--{name} {getattr(given, name)} must be at least 1.")
    return given


def observation(given, task, spec: Spec, observed: int) -> dict:
    """{name: [batch, To, D]} from the file or from the simulator."""
    wanted = task.columns or tuple(spec.observations)
    if given.observation:
        path = Path(given.observation)
        try:
            columns = {key: np.asarray(x, np.float32) for key, x in read_json(path).items()}
        except (ValueError, TypeError, AttributeError) as error:
            raise UserError(f"{path}: not a JSON object of numbers ({error}).") from None
        missing = [key for key in wanted if key not in columns]
        if missing:
            raise UserError(f"{path}: lacks {missing}; {task.name} observes {list(wanted)}.")
    else:
        seed = task.selection_seeds if given.seed is None else given.seed
        columns = task.reset(task.make(), seed)
    columns = {key: columns[key] for key in wanted}
    for key in columns.keys() & spec.cameras.keys():
        pixels = images.as_pixels(columns[key])
        if pixels is None:
            raise UserError(f"--observation: {key}: pixels are whole numbers from 0 to 255.")
        columns[key] = pixels
    for key, x in columns.items():
        one = 3 if key in spec.cameras else 1  # dims of a single step
        steps = x if x.ndim > one else np.repeat(x[None], observed, axis=0)
        if len(steps) != observed or not np.isfinite(steps).all():
            raise UserError(
                f"--observation: {key} has shape {x.shape}; expected one step, or "
                f"To = {observed} steps, of finite numbers."
            )
        columns[key] = np.repeat(steps[None], given.batch, axis=0)
    try:
        obs = task.observe(columns)
        sizes = {key: x.shape[2:] if key in spec.cameras else x.shape[-1] for key, x in obs.items()}
    except (ValueError, IndexError) as error:
        raise UserError(f"--observation: {task.name} cannot read it ({error}).") from None
    if sizes != spec.observations:
        raise UserError(f"--observation: sizes {sizes}, the run wants {spec.observations}.")
    return obs


def read_json(path: Path) -> dict:
    if not path.exists():
        raise UserError(f"--observation {path}: there is no such file.")
    return json.loads(path.read_text())


def main(argv=None) -> int:
    given = arguments(argv)
    logging.basicConfig(level=logging.WARNING, format="dpjax: %(message)s", force=True)
    run = run_lib.load(given.run, sampler=given.sampler, steps=given.steps)
    task = tasks.get(run.config.task)
    obs = observation(given, task, run.spec, run.config.horizon.obs)
    keys = jax.random.split(jax.random.key(given.seed or 0), given.repeat + 1)

    compiled, took = run.warm_up([given.batch]), []
    for key in keys:
        start = time.perf_counter()
        actions = run.plan(key, obs)
        took.append((time.perf_counter() - start) * 1e3)
    steady = np.array(took[1:])  # the first call still touches memory for the first time

    np.set_printoptions(precision=1, suppress=True, floatmode="fixed")
    first = run.config.horizon.obs - 1
    last = first + run.config.horizon.act
    print(f"actions {actions.shape}, of which steps {first} to {last - 1} are executed")
    print(f"the first chunk's:\n{actions[0, first:last]}")
    print(
        f"{run.config.sampler.name}, {run.config.sampler.num_steps} steps, batch {given.batch}: "
        f"median {np.median(steady):.1f} ms, 95 % {np.quantile(steady, 0.95):.1f} ms over "
        f"{given.repeat} calls, the first {took[0]:.1f} ms; compilation {compiled:.1f} s before"
    )
    return 0


if __name__ == "__main__":
    flags.run(main)
