"""Demonstrations made by rolling out a policy and keeping what succeeds, as RLDS.

    python -m dpjax.demos --from-run RUN --episodes N --keep success [--max-steps M] --out DIR
"""

import argparse
import json
import logging
from pathlib import Path

import jax
from tqdm import tqdm

from dpjax import build, errors, tasks
from dpjax.data import rlds
from dpjax.errors import UserError
from dpjax.evaluation import rollout


def arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dpjax.demos",
        description="Roll out a policy on fresh seeds and keep what succeeds.",
    )
    parser.add_argument("--from-run", required=True, help="run folder that dpjax.train made")
    parser.add_argument("--episodes", type=int, required=True, help="how many to keep")
    parser.add_argument("--keep", choices=("success", "all"), required=True)
    parser.add_argument("--max-steps", type=int, help="an episode ends here (default: task's)")
    parser.add_argument("--out", required=True, help="RLDS folder to make")
    parser.add_argument("--first-seed", type=int, help="default: the task's demonstration seeds")
    parser.add_argument("--attempts", type=int, help="give up after so many (default 20 a kept)")
    parser.add_argument("--num-envs", type=int, default=50, help="in flight at once")
    parser.add_argument("--steps", type=int, help="sampling steps S (default: the run's)")
    parser.add_argument("--sampler", choices=sorted(build.SAMPLERS), help="default: the run's")
    given = parser.parse_args(argv)
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


def collect(run: build.Run, given) -> tuple[list, int]:
    """The kept episodes in order of their seeds, and how many were tried."""
    task = tasks.get(run.config.task)
    seeds = seed_range(task, given)
    task = task._replace(max_steps=given.max_steps or task.max_steps)
    kept, tried = [], 0
    bar = tqdm(total=given.episodes, desc="kept", unit="episode")
    while len(kept) < given.episodes and tried < len(seeds):
        episodes = rollout.rollout(
            task,
            run.plan,
            seeds=seeds[tried : tried + 2 * given.num_envs],
            observed=run.config.horizon.obs,
            executed=run.config.horizon.act,
            num_envs=given.num_envs,
            rng=jax.random.key(run.config.seed),
            progress=False,
        )
        tried += len(episodes)
        good = [e for e in episodes if not e.broken and (e.success or given.keep == "all")]
        good = good[: given.episodes - len(kept)]
        kept += good
        bar.update(len(good))
        bar.set_postfix(tried=tried)
    bar.close()
    if len(kept) < given.episodes:
        raise UserError(
            f"{len(kept)} of {tried} episodes were good enough, --episodes {given.episodes} were "
            "wanted: ask for fewer, or raise --attempts or --max-steps."
        )
    return kept, tried


def write(run: build.Run, given, kept: list, tried: int) -> None:
    """The kept episodes as RLDS, with seed and coverage of each."""
    action = tasks.get(run.config.task).action
    columns = list(kept[0].columns)
    source = {
        "run_step": run.step,
        "sampler": f"{run.config.sampler.name}-{run.config.sampler.num_steps}",
        "keep": given.keep,
        "max_steps": given.max_steps,
        "tried": tried,
        "seeds": [kept[0].seed, kept[-1].seed],
    }
    rlds.write(
        given.out,
        ({**episode.columns, action: episode.actions} for episode in kept),
        name=f"{run.config.task}_demos",
        observations=columns,
        metadata=[{"seed": e.seed, "progress": float(e.progress.max())} for e in kept],
        description=f"Rollouts of a dpjax policy on {run.config.task}: {json.dumps(source)}",
    )


def main(argv=None) -> int:
    given = arguments(argv)
    logging.basicConfig(level=logging.WARNING, format="dpjax: %(message)s", force=True)
    run = build.load(given.from_run, sampler=given.sampler, steps=given.steps)
    kept, tried = collect(run, given)
    write(run, given, kept, tried)
    lengths = sorted(episode.steps for episode in kept)
    size = sum(path.stat().st_size for path in Path(given.out).rglob("*") if path.is_file())
    print(
        f"{given.out}: {len(kept)} episodes of {tried} tried, {sum(lengths)} steps (median "
        f"{lengths[len(lengths) // 2]} an episode), {size / 1e6:.2f} MB"
    )
    return 0


if __name__ == "__main__":
    errors.run(main)
