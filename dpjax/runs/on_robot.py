"""A run as the robot loop uses it: `dpjax.robot.acting.Acting`.

run = dpjax.load("pusht_demo")
acting = on_robot.acting("pusht_demo", run)
attempt = drive(robot, acting, ThreadWorker(), clock.real(), jax.random.key(0))
"""

from pathlib import Path
import time
from typing import Any

import jax
import numpy as np

from dpjax import tasks
from dpjax.inference.protocol import SampleActions
from dpjax.policies import layouts
from dpjax.robot.acting import Acting
from dpjax.robot.timeline import Column
from dpjax.runs import limits_file
from dpjax.runs.run import Run

CALLS = 30  # for the promise; its 99 % quantile is nearly the largest of them


def acting(
    name: str | Path,
    run: Run,
    *,
    sample_actions: SampleActions | None = None,
    promise: float | None = None,
    clamp: bool = False,
    max_age: float = 0.5,
) -> Acting:
    """The run's policy for one robot, with the limits of its demonstrations.

    Args:
        name: the run folder or the shipped policy that `run` was loaded from.
        sample_actions: another way to sample, such as a `RemotePolicy`; None for the run itself.
        promise: seconds that sampling takes at most; None measures the 99 % quantile.
        clamp: actions beyond the limits are brought back to them instead of refused.
        max_age: seconds that a sensor's newest sample may be old.
    """
    sample = sample_actions or run.sample_actions
    horizon = run.config.horizon
    return Acting(
        sample_actions=sample,
        observed=horizon.obs,
        predicted=horizon.predict,
        executed=horizon.act,
        action_dim=run.spec.action,
        columns=columns(run, max_age),
        observe=run.task.observe,
        promise=measure(sample, run) if promise is None else promise,
        limits=limits_file.read(name, run.config),
        clamp=clamp,
    )


def columns(run: Run, max_age: float) -> dict[str, Column]:
    """{sensor: how it is brought onto the policy's steps} of the columns that the task observes."""
    names = tasks.observed_columns(run.task, run.spec.observations)
    texts: Any = run.config.representation.layouts
    return {
        name: Column(
            parts=layouts.parse(name, texts[name]) if name in texts else (),
            is_image=name in run.spec.cameras,
            max_age=max_age,
        )
        for name in names
    }


def measure(sample_actions: SampleActions, run: Run) -> float:
    """The 99 % quantile of the seconds that sampling takes, after a call that compiles."""
    # Zeros take as long as real observations: the program has no branches.
    obs = {
        name: np.zeros((1, run.config.horizon.obs, *size), np.uint8)
        for name, size in run.spec.cameras.items()
    }
    for name, size in run.spec.numbers.items():
        obs[name] = np.zeros((1, run.config.horizon.obs, size), np.float32)
    # The first call compiles, and is left out of the quantile.
    key = jax.random.key(0)[None]
    seconds = []
    for _ in range(CALLS + 1):
        start = time.perf_counter()
        np.asarray(sample_actions(key, obs))
        seconds.append(time.perf_counter() - start)
    return float(np.quantile(seconds[1:], 0.99))
