"""Demonstrations as RLDS: rolls out a policy, or a task's scripted expert, keeps what succeeds.

python -m dpjax.demos --from-run RUN --episodes N --keep success [--max-steps M] --out DIR
python -m dpjax.demos --task metaworld/push --episodes 10 --keep success --out DIR
"""

import argparse
from collections.abc import Callable
import json
import logging
from pathlib import Path
import re
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from dpjax import tasks
from dpjax.config import build, flags
from dpjax.core.errors import UserError
from dpjax.data import rlds
from dpjax.evaluation import rollout
from dpjax.runs import run as run_lib
from dpjax.tasks import base

NUM_ENVS = 50  # that a policy plans for together


class Source(NamedTuple):
    """Who acts, and where.

    plan, observed, executed, rng: as evaluation.rollout takes them. num_envs: in flight at
    once. batch: episodes of one rollout, given how many are missing. about: for the data
    set's description.
    """

    task: base.Task
    plan: Callable
    observed: int
    executed: int
    rng: Any
    num_envs: int
    batch: Callable[[int], int]
    about: dict


class Tried(NamedTuple):
    """How many episodes there were, and what became of those that are no success."""

    episodes: int = 0
    failed: int = 0
    broken: int = 0

    def __str__(self):
        return f"{self.failed} failed, {self.broken} broken"


def arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dpjax.demos",
        description="Roll out a policy or a scripted expert on fresh seeds, keep what succeeds.",
    )
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--from-run", help="run folder that dpjax.train made: its policy acts")
    who.add_argument("--task", help="a task whose scripted expert acts, such as metaworld/push")
    parser.add_argument("--episodes", type=int, required=True, help="how many to keep")
    parser.add_argument("--keep", choices=("success", "all"), required=True)
    parser.add_argument("--max-steps", type=int, help="an episode ends here (default: task's)")
    parser.add_argument("--out", required=True, help="RLDS folder to make")
    parser.add_argument("--first-seed", type=int, help="default: the task's demonstration seeds")
    parser.add_argument("--attempts", type=int, help="give up after so many (default 20 a kept)")
    parser.add_argument(
        "--num-envs", type=int, help=f"in flight at once (default {NUM_ENVS}; 1 for an expert)"
    )
    parser.add_argument("--steps", type=int, help="sampling steps S (default: the run's)")
    parser.add_argument("--sampler", choices=sorted(build.SAMPLERS), help="default: the run's")
    given = parser.parse_args(argv)
    if given.task and (given.steps or given.sampler):
        raise UserError("--steps and --sampler are a policy's: they go with --from-run.")
    for name in ("episodes", "num_envs", "max_steps", "attempts"):
        value = getattr(given, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value} must be at least 1.")
    if Path(given.out).exists():
        raise UserError(f"--out {given.out} exists already: remove it, or give another folder.")
    return given


def seed_range(task, given) -> range:
    """The seeds to try, in order; never an official one or one for selection."""
    first = task.demo_seeds if given.first_seed is None else given.first_seed
    seeds = range(first, first + (given.attempts or 20 * given.episodes))
    if seeds.start < task.demo_seeds:
        raise UserError(
            f"--first-seed {first} is not a seed for demonstrations: they begin at "
            f"{task.demo_seeds}, so that none is ever tested on."
        )
    return seeds


def policy_source(given) -> Source:
    """The policy of --from-run in its task."""
    run = run_lib.load(given.from_run, sampler=given.sampler, steps=given.steps)
    num_envs = given.num_envs or NUM_ENVS
    run.warm_up([num_envs])
    return Source(
        tasks.get(run.config.task),
        run.plan,
        run.config.horizon.obs,
        run.config.horizon.act,
        jax.random.key(run.config.seed),
        num_envs,
        lambda missing: 2 * num_envs,  # always as many: the plan is compiled once
        {
            "run_step": run.step,
            "sampler": f"{run.config.sampler.name}-{run.config.sampler.num_steps}",
        },
    )


def expert_source(given) -> Source:
    """The scripted expert of --task, as a plan of one step that sees the raw columns."""
    task = tasks.get(given.task)
    if task.expert is None:
        raise UserError(
            f"--task {given.task}: it has no scripted expert (dpjax/tasks); use --from-run."
        )
    act = task.expert()

    def plan(keys, obs, previous=None):
        rows = [{name: x[row, -1] for name, x in obs.items()} for row in range(len(keys))]
        return np.stack([act(row) for row in rows])[:, None]

    return Source(
        task._replace(observe=lambda columns: columns),
        plan,
        observed=1,
        executed=1,
        rng=jax.random.key(0),  # the expert draws nothing
        num_envs=given.num_envs or 1,
        batch=lambda missing: missing,
        about={"expert": task.name},
    )


def collect(source: Source, given) -> tuple[list, Tried]:
    """The kept episodes in order of their seeds, and what was tried."""
    seeds = seed_range(source.task, given)
    task = source.task._replace(max_steps=given.max_steps or source.task.max_steps)
    kept, tried = [], Tried()
    bar = tqdm(total=given.episodes, desc="kept", unit="episode")
    while len(kept) < given.episodes and tried.episodes < len(seeds):
        first = tried.episodes
        episodes = rollout.rollout(
            task,
            source.plan,
            seeds=seeds[first : first + source.batch(given.episodes - len(kept))],
            observed=source.observed,
            executed=source.executed,
            num_envs=source.num_envs,
            rng=source.rng,
            progress=False,
        )
        broken = [e for e in episodes if e.broken]
        failed = [e for e in episodes if not e.broken and not e.success]
        counts = (len(episodes), len(failed), len(broken))
        tried = Tried(*(a + b for a, b in zip(tried, counts)))
        good = [e for e in episodes if not e.broken and (e.success or given.keep == "all")]
        good = good[: given.episodes - len(kept)]
        kept += good
        bar.update(len(good))
        bar.set_postfix(tried=tried.episodes)
    bar.close()
    if len(kept) < given.episodes:
        why = f"; the last: {broken[-1].broken}" if broken else ""
        raise UserError(
            f"{len(kept)} of {tried.episodes} episodes were good enough ({tried}{why}), "
            f"--episodes {given.episodes} were wanted: ask for fewer, or raise --attempts or "
            "--max-steps."
        )
    return kept, tried


def write(source: Source, given, kept: list, tried: Tried) -> None:
    """The kept episodes as RLDS, with seed and progress of each."""
    task = source.task
    about = {
        **source.about,
        "keep": given.keep,
        "max_steps": given.max_steps,
        "tried": tried.episodes,
        "failed": tried.failed,
        "broken": tried.broken,
        "seeds": [kept[0].seed, kept[-1].seed],
    }
    rlds.write(
        given.out,
        ({**episode.columns, task.action: episode.actions} for episode in kept),
        name=re.sub(r"\W", "_", f"{task.name}_demos"),
        observations=list(kept[0].columns),
        metadata=[{"seed": e.seed, "progress": float(e.progress.max())} for e in kept],
        description=f"Rollouts on {task.name} by dpjax.demos: {json.dumps(about)}",
    )


def main(argv=None) -> int:
    given = arguments(argv)
    logging.basicConfig(level=logging.WARNING, format="dpjax: %(message)s", force=True)
    source = expert_source(given) if given.task else policy_source(given)
    kept, tried = collect(source, given)
    write(source, given, kept, tried)
    lengths = sorted(episode.steps for episode in kept)
    size = sum(path.stat().st_size for path in Path(given.out).rglob("*") if path.is_file())
    print(
        f"{given.out}: {len(kept)} episodes of {tried.episodes} tried, {sum(lengths)} steps "
        f"(median {lengths[len(lengths) // 2]} an episode), {size / 1e6:.2f} MB; of those "
        f"tried {tried}"
    )
    return 0


if __name__ == "__main__":
    flags.run(main)
