"""The sources of new demonstrations: a trained policy, or a task's scripted expert."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from dpjax import tasks
from dpjax.runs.run import Run


class Demonstrator(NamedTuple):
    """A policy or an expert, as arguments of `rollout`, and its task.

    observe, sample_actions, observed, executed, rng, num_envs: as `rollout` takes them.
    about: what the data set's description says about the source.
    """

    task: tasks.Task
    # The arguments of `rollout`.
    observe: Callable
    sample_actions: Callable
    observed: int
    executed: int
    rng: Any
    num_envs: int
    # Ready for JSON.
    about: dict[str, Any]


def of_policy(run: Run, num_envs: int) -> Demonstrator:
    """The policy of a run, in the task that it was trained for; compiles it for `num_envs`."""
    # One compiled program for all rounds, since `padded` keeps the batch size constant.
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
    """`sample_actions` for batches of at most `size` examples, padded to exactly `size`.

    A round of fewer episodes then uses the program that was compiled for the first round. Copies
    of the last example are the padding; no example depends on the others in its batch.
    """

    def call(keys, obs, previous=None, *committed):
        # A full batch needs no copies.
        if len(keys) == size:
            return sample_actions(keys, obs, previous, *committed)
        # The indices 0, 1, …, n - 1, n - 1, …: the last example fills the batch.
        index = np.minimum(np.arange(size), len(keys) - 1)
        previous = None if previous is None else previous[index]
        committed = [counts[index] for counts in committed]  # of one array, or of none
        obs = {name: x[index] for name, x in obs.items()}
        # Without the actions of the padding.
        return sample_actions(keys[index], obs, previous, *committed)[: len(keys)]

    return call


def of_expert(task: tasks.Task, expert: Callable, num_envs: int) -> Demonstrator:
    """A scripted expert of the task, as a policy that observes the raw columns of one step.

    expert: as in `Simulator`: () -> (raw columns of one step -> action [Da]).
    """
    # The expert has no memory, so `rollout` sees a policy with To = Ta = 1.
    act = expert()

    def sample_actions(keys, obs, previous=None, *committed):
        # The expert takes one environment at a time: the newest step of each example.
        steps = [{name: x[i, -1] for name, x in obs.items()} for i in range(len(keys))]
        return np.stack([act(columns) for columns in steps])[:, None]  # [B, 1, Da]

    return Demonstrator(
        task,
        observe=lambda columns: columns,  # the expert reads raw columns, not `task.observe`
        sample_actions=sample_actions,
        observed=1,
        executed=1,
        rng=jax.random.key(0),  # not used: the expert is deterministic
        num_envs=num_envs,
        about={"expert": task.name},
    )
