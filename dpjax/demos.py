"""Demonstrations as RLDS: rolls out a policy or a task's scripted expert and keeps what succeeds.

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

NUM_ENVS = 50  # that a policy acts in at the same time
ATTEMPTS = 20  # per episode that is wanted

Episodes = list[rollout.Episode]


class Counts(NamedTuple):
    """How many episodes were tried, and why some of them were not kept.

    surplus: good ones that came after enough were kept; they had been started in the same round.
    """

    tried: int = 0
    failed: int = 0
    broken: int = 0
    surplus: int = 0

    def after(self, episodes: Episodes, surplus: int) -> "Counts":
        """The counts with the episodes of one more round."""
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
    # Who acts.
    actor = parser.add_mutually_exclusive_group(required=True)
    actor.add_argument("--from-run", help="the policy of this run folder acts (or pusht_demo)")
    actor.add_argument("--task", help="the scripted expert of this task acts: metaworld/push")
    # What is kept, and where.
    add = parser.add_argument
    add("--episodes", type=int, required=True, help="how many to keep")
    add("--keep", choices=("success", "all"), required=True)
    add("--max-steps", type=int, help="an episode ends after so many steps (default: the task's)")
    add("--out", required=True, help="RLDS folder to make")
    # What is tried.
    add("--first-seed", type=int, help="default: the task's seeds for demonstrations")
    add("--attempts", type=int, help=f"give up after so many (default {ATTEMPTS} per episode)")
    add("--num-envs", type=int, help=f"at the same time (default {NUM_ENVS}; an expert: 1)")
    # How a policy samples.
    add("--steps", type=int, help="sampling steps S (default: the run's)")
    add("--sampler", choices=sorted(build.SAMPLERS), help="default: the run's")
    args = parser.parse_args(argv)
    # What argparse cannot check.
    if args.task and (args.steps or args.sampler):
        raise UserError("--steps and --sampler are a policy's: they go with --from-run.")
    for name in ("episodes", "num_envs", "max_steps", "attempts"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value} must be at least 1.")
    if Path(args.out).exists():
        raise UserError(f"--out {args.out} exists already: remove it, or give another folder.")
    return args


def demonstrator_of(args: argparse.Namespace) -> Demonstrator:
    """The expert of --task, or the policy of --from-run, ready to act."""
    if args.task:
        task = tasks.get(args.task)
        expert = tasks.require_simulator(task).expert
        if expert is None:
            raise UserError(
                f"--task {args.task}: it has no scripted expert (dpjax/tasks); use --from-run."
            )
        return demonstrators.of_expert(task, expert, args.num_envs or 1)
    run = run_lib.load(args.from_run, sampler=args.sampler, steps=args.steps)
    seeds_to_try(tasks.require_simulator(run.task), args)  # wrong ones before it compiles
    # A few episodes need few environments; a larger batch would only compute more per step.
    return demonstrators.of_policy(run, min(args.num_envs or NUM_ENVS, args.episodes))


def seeds_to_try(simulator: tasks.Simulator, args: argparse.Namespace) -> range:
    """The seeds, in order; never those of evaluations."""
    first = simulator.demo_seeds if args.first_seed is None else args.first_seed
    if first < simulator.demo_seeds:
        raise UserError(
            f"--first-seed {first} is not a seed for demonstrations: they begin at "
            f"{simulator.demo_seeds}, so that none is ever tested on."
        )
    return range(first, first + (args.attempts or ATTEMPTS * args.episodes))


def round_size(missing: int, kept: int, tried: int, num_envs: int) -> int:
    """How many seeds to try in the next round, so that about `missing` of them are good.

    It follows the share of good episodes so far, counted with one more good one (so that it is
    above 0). A round has at most as many seeds as are missing or as there are environments: a
    round that fills the environments takes no longer than a smaller one.
    """
    # missing / (kept + 1) * (tried + 1): the seeds that `missing` good episodes would take.
    expected = math.ceil(missing * (tried + 1) / (kept + 1))
    return min(expected, max(missing, num_envs))


def collect(demonstrator: Demonstrator, args: argparse.Namespace) -> tuple[Episodes, Counts]:
    """Returns the kept episodes in the order of their seeds, and counts of the others."""
    simulator = tasks.require_simulator(demonstrator.task)
    seeds = seeds_to_try(simulator, args)
    # With a lower limit only quick successes are kept.
    simulator = simulator._replace(max_steps=args.max_steps or simulator.max_steps)
    kept: Episodes = []
    counts = Counts()
    reason = ""  # why the last broken episode broke
    bar = tqdm(total=args.episodes, desc="kept", unit="episode")
    # Rounds of seeds, in order, until enough episodes are kept or all seeds are tried.
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
            num_envs=demonstrator.num_envs,
            rng=demonstrator.rng,
            progress=False,
        )
        # Good episodes beyond what is missing are left out, but counted.
        good = [e for e in episodes if not e.broken and (e.success or args.keep == "all")]
        kept += good[:missing]
        counts = counts.after(episodes, surplus=max(0, len(good) - missing))
        reasons = [e.broken for e in episodes if e.broken]
        reason = f"; the last: {reasons[-1]}" if reasons else reason
        bar.update(len(good[:missing]))
        bar.set_postfix(tried=counts.tried)
    bar.close()
    check_enough(args, kept, counts, reason)
    return kept, counts


def check_enough(args: argparse.Namespace, kept: Episodes, counts: Counts, reason: str) -> None:
    """Refuses a data set of fewer episodes than were asked for."""
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
    # JSON in the data set's description, so that programs can read it back.
    about = {
        **demonstrator.about,
        "keep": args.keep,
        "max_steps": args.max_steps,
        **counts._asdict(),
        "seeds": [kept[0].seed, kept[-1].seed],
    }
    rlds.write(
        args.out,
        ({**episode.columns, task.action: episode.actions} for episode in kept),
        name=re.sub(r"\W", "_", f"{task.name}_demos"),
        observations=list(kept[0].columns),
        metadata=[{"seed": e.seed, "progress": float(e.progress.max())} for e in kept],
        description=f"Rollouts on {task.name} by dpjax.demos: {json.dumps(about)}",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = arguments(argv)
    logging.basicConfig(level=logging.WARNING, format="dpjax: %(message)s", force=True)
    # Nothing is written before enough episodes are there.
    demonstrator = demonstrator_of(args)
    kept, counts = collect(demonstrator, args)
    write(demonstrator, args, kept, counts)
    # One line on what was made.
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
