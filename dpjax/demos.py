"""Makes demonstrations as RLDS: rolls out a policy or a scripted expert, and keeps successes.

python -m dpjax.demos --from-run RUN --episodes N --keep success [--max-steps M] --out DIR
python -m dpjax.demos --task metaworld/push --episodes 10 --keep success --out DIR
"""

import argparse
from collections.abc import Sequence
import json
import logging
import math
from pathlib import Path
import re
from typing import NamedTuple

from tqdm import tqdm

from dpjax import tasks
from dpjax.config import build, flags
from dpjax.core.errors import UserError
from dpjax.data import rlds
from dpjax.evaluation import rollout
from dpjax.runs import demonstrators
from dpjax.runs import run as run_lib
from dpjax.runs.demonstrators import Demonstrator

NUM_ENVS = 50  # environments in which a policy acts at the same time
ATTEMPTS = 20  # seeds that are tried at most, per episode that is asked for

Episodes = list[rollout.Episode]


class Counts(NamedTuple):
    """How many episodes were tried, and why some of them were not kept.

    surplus: good episodes of the last round that were not needed any more.
    """

    tried: int = 0
    failed: int = 0
    broken: int = 0
    surplus: int = 0

    def after(self, episodes: Episodes, surplus: int) -> "Counts":
        """The counts after one more round of episodes."""
        # A broken episode says nothing about the policy, so it is not a failure.
        broken = sum(e.broken is not None for e in episodes)
        failed = sum(e.broken is None and not e.success for e in episodes)
        return Counts(
            tried=self.tried + len(episodes),
            failed=self.failed + failed,
            broken=self.broken + broken,
            surplus=self.surplus + surplus,
        )

    def __str__(self) -> str:
        more = f", {self.surplus} good but not needed" if self.surplus else ""
        return f"{self.failed} failed, {self.broken} broken{more}"


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command-line arguments, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m dpjax.demos",
        description="Roll out a policy or a scripted expert on fresh seeds, keep what succeeds.",
    )
    # What acts: exactly one of the two.
    actor = parser.add_mutually_exclusive_group(required=True)
    actor.add_argument("--from-run", help="the policy of this run folder acts (or pusht_demo)")
    actor.add_argument("--task", help="the scripted expert of this task acts: metaworld/push")
    # Which episodes are kept, and where to.
    add = parser.add_argument
    add("--episodes", type=int, required=True, help="how many to keep")
    add("--keep", choices=("success", "all"), required=True)
    add("--max-steps", type=int, help="an episode ends after so many steps (default: the task's)")
    add("--out", required=True, help="RLDS folder to make")
    # Which seeds are tried, and how many at most.
    add("--first-seed", type=int, help="default: the task's seeds for demonstrations")
    add("--attempts", type=int, help=f"give up after so many (default {ATTEMPTS} per episode)")
    add("--num-envs", type=int, help=f"at the same time (default {NUM_ENVS}; an expert: 1)")
    # How a policy samples.
    add("--steps", type=int, help="sampling steps S (default: the run's)")
    add("--sampler", choices=sorted(build.SAMPLERS), help="default: the run's")
    add("--agree", choices=build.AGREEMENTS, help="with the last chunk (default: the run's)")
    add("--delay", type=int, default=0, help="steps until a chunk takes over (default 0)")
    args = parser.parse_args(argv)
    # What argparse cannot check: options that exclude each other, ranges, and the output folder.
    if args.task and (args.steps or args.sampler):
        raise UserError("--steps and --sampler are a policy's: they go with --from-run.")
    if args.task and (args.delay or args.agree):
        raise UserError("--delay and --agree are a policy's: they go with --from-run.")
    for name in ("episodes", "num_envs", "max_steps", "attempts"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value} must be at least 1.")
    if Path(args.out).exists():
        raise UserError(f"--out {args.out} exists already: remove it, or give another folder.")
    return args


def demonstrator_of(args: argparse.Namespace) -> Demonstrator:
    """The expert of --task, or the policy of --from-run, ready to act."""
    # An expert steps one environment after the other, so more of them would gain nothing.
    if args.task:
        task = tasks.get(args.task)
        expert = tasks.require_simulator(task).expert
        if expert is None:
            raise UserError(
                f"--task {args.task}: it has no scripted expert (dpjax/tasks); use --from-run."
            )
        return demonstrators.of_expert(task, expert, args.num_envs or 1)
    run = run_lib.load(args.from_run, sampler=args.sampler, steps=args.steps, agree=args.agree)
    seeds_to_try(tasks.require_simulator(run.task), args)  # raises now, not after compilation
    # A few episodes need few environments. A larger batch would only take longer per step.
    return demonstrators.of_policy(run, min(args.num_envs or NUM_ENVS, args.episodes))


def seeds_to_try(simulator: tasks.Simulator, args: argparse.Namespace) -> range:
    """The seeds to try, in order; raises UserError if they include seeds of evaluations."""
    # The seeds for demonstrations are the highest, so only the lower end needs a check.
    first = simulator.demo_seeds if args.first_seed is None else args.first_seed
    if first < simulator.demo_seeds:
        raise UserError(
            f"--first-seed {first} is not a seed for demonstrations: they begin at "
            f"{simulator.demo_seeds}, so that none is ever tested on."
        )
    return range(first, first + (args.attempts or ATTEMPTS * args.episodes))


def round_size(missing: int, kept: int, tried: int, num_envs: int) -> int:
    """How many seeds to try in the next round, so that about `missing` of them are good.

    The estimate uses the share of good episodes so far, counted with one more good episode, so
    that it is above 0. A round is limited to the larger of `missing` and `num_envs`: filling the
    environments takes no longer than a smaller round.
    """
    # The share is (kept + 1) / (tried + 1); `missing` good episodes take missing / share seeds.
    expected = math.ceil(missing * (tried + 1) / (kept + 1))
    return min(expected, max(missing, num_envs))


def collect(demonstrator: Demonstrator, args: argparse.Namespace) -> tuple[Episodes, Counts]:
    """Returns the kept episodes in the order of their seeds, and counts of the others."""
    simulator = tasks.require_simulator(demonstrator.task)
    seeds = seeds_to_try(simulator, args)
    # A limit below the task's keeps quick successes only.
    simulator = simulator._replace(max_steps=args.max_steps or simulator.max_steps)
    kept: Episodes = []
    counts = Counts()
    reason = ""  # why the last broken episode broke
    bar = tqdm(total=args.episodes, desc="kept", unit="episode")
    # Try seeds in rounds, in order, until enough episodes are kept or all seeds are tried.
    while len(kept) < args.episodes and counts.tried < len(seeds):
        missing = args.episodes - len(kept)
        size = round_size(missing, len(kept), counts.tried, demonstrator.num_envs)
        episodes = rollout.rollout(
            simulator,
            demonstrator.observe,
            demonstrator.sample_actions,
            seeds=seeds[counts.tried : counts.tried + size],
            observed=demonstrator.observed,
            executed=demonstrator.executed,
            delay=args.delay,
            num_envs=demonstrator.num_envs,
            rng=demonstrator.rng,
            progress=False,  # the bar here counts what is kept
        )
        # Good episodes beyond those that are missing are left out, but counted.
        good = [e for e in episodes if not e.broken and (e.success or args.keep == "all")]
        kept += good[:missing]
        counts = counts.after(episodes, surplus=max(0, len(good) - missing))
        reasons = [e.broken for e in episodes if e.broken]
        reason = f"; the last: {reasons[-1]}" if reasons else reason
        # The bar shows kept episodes, and beside it how many were tried.
        bar.update(len(good[:missing]))
        bar.set_postfix(tried=counts.tried)
    bar.close()
    check_enough(args, kept, counts, reason)
    return kept, counts


def check_enough(args: argparse.Namespace, kept: Episodes, counts: Counts, reason: str) -> None:
    """Raises UserError if fewer episodes were kept than were asked for."""
    if len(kept) < args.episodes:
        raise UserError(
            f"{len(kept)} of {counts.tried} episodes were good enough ({counts}{reason}), "
            f"--episodes {args.episodes} were wanted: ask for fewer, or raise --attempts or "
            "--max-steps."
        )


def write(
    demonstrator: Demonstrator, args: argparse.Namespace, kept: Episodes, counts: Counts
) -> None:
    """Writes the kept episodes as RLDS, with the seed and the progress of each."""
    task = demonstrator.task
    # This goes into the data set's description as JSON, so that programs can read it.
    about = {
        **demonstrator.about,
        "keep": args.keep,
        "max_steps": args.max_steps,
        **counts._asdict(),
        "seeds": [kept[0].seed, kept[-1].seed],
    }
    rlds.write(
        args.out,
        # The raw columns as the simulator gave them, with the action beside them.
        ({**episode.columns, task.action: episode.actions} for episode in kept),
        # RLDS names are identifiers: metaworld/push-back gives metaworld_push_back_demos.
        name=re.sub(r"\W", "_", f"{task.name}_demos"),
        observations=list(kept[0].columns),
        metadata=[{"seed": e.seed, "progress": float(e.progress.max())} for e in kept],
        description=f"Rollouts on {task.name} by dpjax.demos: {json.dumps(about)}",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = arguments(argv)
    logging.basicConfig(level=logging.WARNING, format="dpjax: %(message)s", force=True)
    # The folder is written only after enough episodes are kept, so it is never incomplete.
    demonstrator = demonstrator_of(args)
    kept, counts = collect(demonstrator, args)
    write(demonstrator, args, kept, counts)
    # Print one line about the data set.
    lengths = sorted(episode.steps for episode in kept)
    size = sum(path.stat().st_size for path in Path(args.out).rglob("*") if path.is_file())
    print(
        f"{args.out}: {len(kept)} episodes of {counts.tried} tried, {sum(lengths)} steps "
        f"(median {lengths[len(lengths) // 2]} per episode), {size / 1e6:.2f} MB; of those "
        f"tried {counts}"
    )
    return 0


if __name__ == "__main__":
    flags.run(main)
