"""What demonstrations are made with: a trained policy, or a task's scripted expert."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from dpjax import tasks
from dpjax.runs.run import Run


class Demonstrator(NamedTuple):
    """What acts, and what it acts in.

    observe, sample_actions, observed, executed, rng, num_envs: as `rollout` takes them.
    about: what the data set's description says of it.
    """

    task: tasks.Task
    observe: Callable
    sample_actions: Callable
    observed: int
    executed: int
    rng: Any
    num_envs: int
    about: dict[str, Any]


def of_policy(run: Run, num_envs: int) -> Demonstrator:
    """The policy of a run, in the task that it was trained for; compiles it for `num_envs`."""
    # One program for all rounds: `padded` keeps the batch size.
    run.warm_up([num_envs])
    return Demonstrator(
        run.task,
        run.task.observe,
        padded(run.sample_actions, num_envs),
        observed=run.config.horizon.obs,
        executed=run.config.horizon.act,
        rng=jax.random.key(run.config.seed),
        num_envs=num_envs,
        about={
            "run_step": run.step,
            "sampler": f"{run.config.sampler.name}-{run.config.sampler.num_steps}",
        },
    )


def padded(sample_actions: Callable, size: int) -> Callable:
    """`sample_actions` for batches of up to `size` examples, which calls it with just `size`.

    A round of few episodes thus runs in the program that was compiled for the first round. The
    padding repeats the last example; an example does not depend on its neighbours.
    """

    def call(keys, obs, previous=None):
        if len(keys) == size:
            return sample_actions(keys, obs, previous)
        # 0, 1, …, n - 1, n - 1, …: the last example again and again.
        index = np.minimum(np.arange(size), len(keys) - 1)
        previous = None if previous is None else previous[index]
        obs = {name: x[index] for name, x in obs.items()}
        return sample_actions(keys[index], obs, previous)[: len(keys)]

    return call


def of_expert(task: tasks.Task, expert: Callable, num_envs: int) -> Demonstrator:
    """A scripted expert of the task, as a policy that observes the raw columns of one step.

    expert: as in `Simulator`: () -> (raw columns of one step -> action [Da]).
    """
    # The expert has no memory and looks at one environment at a time: `rollout` sees a policy that
    # observes and executes single steps.
    act = expert()

    def sample_actions(keys, obs, previous=None):
        # The newest step of each example, then action chunks of one step: [B, 1, Da].
        steps = [{name: x[i, -1] for name, x in obs.items()} for i in range(len(keys))]
        return np.stack([act(columns) for columns in steps])[:, None]

    return Demonstrator(
        task,
        observe=lambda columns: columns,  # raw columns, not what the task's policies observe
        sample_actions=sample_actions,
        observed=1,
        executed=1,
        rng=jax.random.key(0),  # the expert draws nothing
        num_envs=num_envs,
        about={"expert": task.name},
    )
