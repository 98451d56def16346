"""Episodes of a policy in a simulator: many environments in one process, in lockstep.

All environments step together, and one call of the policy samples action chunks for all of them.
An environment whose episode ends in the middle of a chunk waits until the others have executed
theirs, and then starts the next seed. The policy thus always sees a full batch of one shape.

An episode's randomness comes from its seed alone: its result does not depend on the number of
environments that run beside it. An episode is broken if the simulator raises an exception or an
action chunk has NaN. It is recorded with the reason and left out of the scores.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from dpjax.core.errors import UserError
from dpjax.core.types import PRNGKey, example_keys
from dpjax.evaluation.environments import Environments, FinitePolicy, Running
from dpjax.inference.controller import Controller
from dpjax.tasks.base import Columns, Simulator


@dataclass(frozen=True)
class Episode:
    """The record of one episode.

    progress: float32 [T], the simulator's progress after each step.
    columns: {name: [T, ...]}, the raw columns before each action; {} if they were not kept.
    actions: float32 [T, Da], as the policy sampled them; they are never clipped.
    score, success: those of the largest progress; nan and False if broken.
    broken: why the episode does not count, or None.
    out_of_bounds: the number of steps whose action was outside the simulator's range.
    frames: uint8 [H, W, 3] before each action, with the action chunk drawn into it, and at the
        end; None if the episode was not filmed.
    """

    # How it went, step by step.
    seed: int
    steps: int
    progress: np.ndarray
    columns: Columns
    actions: np.ndarray
    # What it counts as.
    score: float
    success: bool
    broken: str | None = None
    out_of_bounds: int = 0
    frames: list[np.ndarray] | None = None


def rollout(
    simulator: Simulator,
    observe: Callable[[Columns], Columns],
    sample_actions: Callable,
    *,
    seeds: Iterable[int],
    observed: int,
    executed: int,
    rng: PRNGKey,
    delay: int = 0,
    num_envs: int = 50,
    record: Iterable[int] = (),
    keep: Iterable[int] | None = None,
    on_end: Callable[[Episode], None] = lambda episode: None,
    progress: bool = True,
    label: str = "rollout",
) -> list[Episode]:
    """Runs one episode for each seed and returns them in the order of the seeds.

    observe: as in `Task`: raw columns {name: [B, ...]} -> the policy's observation.
    sample_actions: (keys [B], observations {name: [B, To, ...]}, previous) -> [B, Tp, Da]; with a
        delay it gets `committed` too, see `inference.protocol`.
    observed, executed: To, the steps that the policy observes, and Ta, the steps of each action
        chunk that are executed.
    delay: steps between an observation and the first action of its chunk.
    rng: a key; the noise of an episode is drawn from this key and the episode's seed.
    num_envs: how many episodes run at the same time, at most.
    record: the seeds whose episodes are filmed.
    keep: the seeds whose raw columns are kept, by default all. (With a camera an episode of 300
        images of 96 x 96 px takes 8 MB.)
    on_end: called with each episode as soon as it has ended.
    progress, label: whether to show a progress bar, and its title.

    Raises UserError if there are no seeds or no environments.
    """
    # No more environments than seeds, since each of them is an example in the policy's batch.
    seeds = _checked(seeds, num_envs)
    waiting = _episodes_to_run(seeds, record, seeds if keep is None else keep)
    environments = Environments(simulator, observe, min(num_envs, len(seeds)))
    policy = FinitePolicy(sample_actions)
    controller = Controller(policy, observed=observed, executed=executed, delay=delay)
    # One key per environment sets the batch size. The loop gives each episode its own key.
    controller.reset(_keys(rng, seeds[: environments.count]))
    bar = tqdm(total=len(seeds), desc=label, unit="episode", disable=not progress)
    episodes: dict[int, Episode] = {}
    while waiting or environments.busy:
        # 1. Free environments start the next seeds, each with the key of its seed.
        started = environments.start(waiting)
        if started:
            controller.reset(_keys(rng, [environments.seed(i) for i in started]), indices=started)
        # 2. All environments execute one action chunk. None is busy if every reset failed.
        for _ in range(executed if environments.busy else 0):
            environments.step(controller, policy)
        # 3. Episodes that have ended free their environments. They end in any order.
        for running in environments.take_ended():
            episodes[running.index] = _episode(simulator, running)
            on_end(episodes[running.index])
        _show(bar, list(episodes.values()))
    bar.close()
    environments.close()
    return [episodes[i] for i in range(len(seeds))]


def _checked(seeds: Iterable[int], num_envs: int) -> list[int]:
    """The seeds as a list; raises UserError if there is nothing to run."""
    # int, since JSON takes no numpy numbers.
    seeds = [int(seed) for seed in seeds]
    if not seeds:
        raise UserError("seeds is empty: give at least 1 seed.", argument="seeds")
    if num_envs < 1:
        raise UserError(f"num_envs={num_envs} must be at least 1.", argument="num_envs")
    return seeds


def _episodes_to_run(
    seeds: list[int], record: Iterable[int], keep: Iterable[int]
) -> deque[Running]:
    """The episodes in the order of their seeds; those to film have a list for their frames."""
    # Sets, since both may be iterators and are asked for every seed.
    record = set(record)
    keep = set(keep)
    return deque(
        Running(i, seed, keep_columns=seed in keep, frames=[] if seed in record else None)
        for i, seed in enumerate(seeds)
    )


def _keys(rng: PRNGKey, seeds: list[int]) -> PRNGKey:
    """One key per episode, which depends on the episode's seed alone."""
    # Seeds are folded into the key as 32-bit numbers.
    return example_keys(rng, np.array(seeds, np.uint32))


def _episode(simulator: Simulator, running: Running) -> Episode:
    """The record of an episode that has ended."""
    # An action is out of bounds if any of its dimensions is.
    actions = np.array(running.actions, np.float32)
    low, high = simulator.action_low, simulator.action_high
    outside = [((action < low) | (action > high)).any() for action in actions]
    # The largest progress, not the last: a block may be pushed onto its goal and off again. An
    # episode that broke at its reset has no progress.
    best = max(running.progress, default=0.0)
    # From a list of steps [{name: [D]}, …] to columns {name: [T, D]}.
    names = running.columns[0] if running.columns else ()
    return Episode(
        seed=running.seed,
        steps=len(running.progress),
        progress=np.array(running.progress, np.float32),
        columns={name: np.stack([raw[name] for raw in running.columns]) for name in names},
        actions=actions,
        score=float("nan") if running.broken else simulator.score(best),
        success=False if running.broken else simulator.success(best),
        broken=running.broken,
        out_of_bounds=int(sum(outside)),
        frames=running.frames,
    )


def _show(bar: tqdm, ended: list[Episode]) -> None:
    """Moves the bar to the number of ended episodes, with the mean score of those that count."""
    # The mean is computed only when more episodes have ended. `update` draws the bar.
    valid = [episode for episode in ended if not episode.broken]
    if valid and len(ended) > bar.n:
        score, success = np.mean([(e.score, e.success) for e in valid], axis=0)
        bar.set_postfix_str(f"score {score:.3f} success {success:.3f}", refresh=False)
    bar.update(len(ended) - bar.n)
