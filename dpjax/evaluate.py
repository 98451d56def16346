"""Scores a trained policy on the official seeds; writes JSON, a film and a report.

python -m dpjax.evaluate --run runs/demo --episodes 50 [--steps S] [--sampler ddim]
"""

import argparse
from collections.abc import Sequence
import functools
import json
import logging
from pathlib import Path
import time
from typing import Any

import jax

from dpjax import tasks
from dpjax.config import build, flags
from dpjax.core.errors import UserError
from dpjax.evaluation import provenance, resume, rollout, scores
from dpjax.runs import evaluation_report, outputs
from dpjax.runs import run as run_lib

# The exit code is 1 if more than this share of the episodes is broken: the score is then of too few
# episodes to be trusted.
ACCEPTED_BROKEN = 0.05

log = logging.getLogger("dpjax")


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command-line arguments, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m dpjax.evaluate", description="Score a run on the official seeds."
    )
    add = parser.add_argument
    # What is evaluated: the run, how it samples, and which weights it uses.
    add("--run", required=True, help="a run folder, or the name of a policy such as pusht_demo")
    add("--steps", type=int, help="sampling steps S (default: the run's)")
    add("--sampler", choices=sorted(build.SAMPLERS), help="default: the run's")
    add("--warm-start", type=float, help="share of S that is skipped (default: the run's)")
    add("--agree", choices=build.AGREEMENTS, help="with the last chunk (default: the run's)")
    add("--delay", type=int, default=0, help="steps until a chunk takes over (default 0: it waits)")
    add("--weights", choices=("ema", "raw"), default="ema")
    add("--checkpoint", type=int, help="training step (default: the newest good checkpoint)")
    # On which seeds, and how many of their episodes run side by side.
    add("--episodes", type=int, default=50, help="one per seed (default 50)")
    add("--first-seed", type=int, help="default: the task's official seeds")
    add("--num-envs", type=int, default=50, help="episodes that run at the same time (default 50)")
    # What is written, and where to.
    add("--film", type=int, default=15, help="episodes in the film, 0 for no film (default 15)")
    add("--gif", help="also write the film as a small gif to this path")
    add("--out", help="folder for what is written (default: the run folder)")
    # The time when `make demo` started: the seconds in the last line are counted from there.
    add("--since", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    # argparse has checked types; these are the ranges.
    for name in ("episodes", "num_envs"):
        if getattr(args, name) < 1:
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag} {getattr(args, name)} must be at least 1.")
    if args.delay < 0:
        raise UserError(f"--delay {args.delay} must be at least 0.")
    if args.warm_start is not None and not 0 <= args.warm_start < 1:
        raise UserError(f"--warm-start {args.warm_start} must be in [0, 1).")
    return args


def file_name(run: run_lib.Run, args: argparse.Namespace) -> str:
    """The name of an evaluation's files, without the ending."""
    # Evaluations with another sampler, other weights or more episodes do not overwrite each other.
    delay = f"-delay-{args.delay}" if args.delay else ""
    return f"evaluation-{label_of(run)}{delay}-{args.weights}-{args.episodes}"


def label_of(run: run_lib.Run) -> str:
    """The label of the run's sampler."""
    sampler = run.config.sampler
    label = sampler_label(sampler.name, sampler.num_steps, sampler.warm_start)
    return label if sampler.agree == "none" else f"{label}-{sampler.agree}"


def sampler_label(sampler: str, steps: int, warm_start: float) -> str:
    """The sampler in file names and reports: ddim-10, or ddim-10-warm-0.5."""
    return f"{sampler}-{steps}" + (f"-warm-{warm_start:g}" if warm_start else "")


def filmed_seeds(simulator: tasks.Simulator, seeds: Sequence[int]) -> set[int]:
    """The seeds to film: none, with a warning, if this machine cannot render the simulator."""
    if not seeds:
        return set()
    # Render one frame on trial. Without graphics libraries a simulator runs but cannot be rendered,
    # and an evaluation must not fail only because there can be no film.
    env = simulator.make()
    try:
        simulator.reset(env, seeds[0])
        simulator.render(env)
    except UserError as error:
        log.warning("no film: %s", error)
        return set()
    finally:
        # An environment without `close` has nothing to free.
        getattr(env, "close", lambda: None)()
    return set(seeds)


def evaluate(
    run: run_lib.Run, args: argparse.Namespace, unfinished: Path, film: int
) -> tuple[list[rollout.Episode], float]:
    """Returns the episodes, and the seconds that they took, compilation included.

    An evaluation that was killed is resumed: with the same settings, its ended episodes are not
    run again, except for the filmed ones, whose frames are lost.

    unfinished: the file that holds the ended episodes until all have ended. film: how many
    episodes are filmed, from the first seed on.
    """
    task = run.task
    simulator = tasks.require_simulator(task)
    first = simulator.official_seeds if args.first_seed is None else args.first_seed
    seeds = range(first, first + args.episodes)
    # Only some are filmed, since a filmed episode keeps its frames and raw columns in memory, up to
    # 130 MB.
    filmed = filmed_seeds(simulator, seeds[:film])

    # 1. The episodes that an earlier evaluation with the same settings has finished. The settings
    # are all that may change an episode's numbers: checkpoint, config and command line.
    settings = {"checkpoint": run.step, "config": run.config.to_dict(), **vars(args)}
    settings.pop("since")  # a time, which differs in each call
    settings = json.loads(json.dumps(settings))  # as read back from the file: lists, not tuples
    finished = resume.start(unfinished, settings)
    episodes = {episode.seed: episode for episode in finished if episode.seed not in filmed}
    missing = [seed for seed in seeds if seed not in episodes]

    # 2. The missing episodes. `resume.add` writes each to the disk as soon as it has ended.
    start = time.perf_counter()
    if missing:
        # `rollout` calls the policy with this batch size: a program of just that size computes no
        # padding.
        run.warm_up([min(args.num_envs, len(missing))])
        new = rollout.rollout(
            simulator,
            task.observe,
            run.sample_actions,
            seeds=missing,
            observed=run.config.horizon.obs,
            executed=run.config.horizon.act,
            delay=args.delay,
            num_envs=args.num_envs,
            rng=jax.random.key(run.config.seed),
            record=filmed,
            keep=filmed,  # the report draws action chunks over their scenes
            on_end=functools.partial(resume.add, unfinished),
            label=task.name,
        )
        episodes.update((episode.seed, episode) for episode in new)
        run.compiled.far.log_counts()
    # In the order of the seeds, whichever call has run them.
    return [episodes[seed] for seed in seeds], time.perf_counter() - start


def measured_with(
    run: run_lib.Run,
    args: argparse.Namespace,
    episodes: Sequence[rollout.Episode],
    seconds: float,
) -> dict[str, Any]:
    """What the numbers were measured with: policy, seeds, machine, versions; ready for JSON."""
    return {
        "run": str(args.run),
        "checkpoint": run.step,
        "weights": args.weights,
        "sampler": label_of(run),
        "delay": args.delay,
        "seeds": f"{episodes[0].seed}-{episodes[-1].seed}",
        "evaluation_seconds": round(seconds, 1),
        **provenance.provenance(),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    args = arguments(argv)
    logging.basicConfig(level=logging.WARNING, format="dpjax: %(message)s", force=True)
    start = args.since or time.time()

    # 1. Load the policy.
    run = run_lib.load(
        args.run,
        sampler=args.sampler,
        steps=args.steps,
        warm_start=args.warm_start,
        agree=args.agree,
        which=args.weights,
        step=args.checkpoint,
    )

    # 2. Run its episodes. Nothing is filmed if the libraries of the report are missing.
    folder = outputs.output_folder(args.run, args.out)
    name = file_name(run, args)
    unfinished = folder / f"{name}.partial.jsonl"
    with_report = evaluation_report.is_possible()
    episodes, seconds = evaluate(run, args, unfinished, film=args.film if with_report else 0)

    # 3. Write the results. The numbers come first: they must not be lost if a picture fails.
    numbers = scores.summarize(episodes)
    about = measured_with(run, args, episodes, seconds)
    page = folder / f"{name}.json"
    result = {**numbers, **about, "by_seed": scores.by_seed(episodes)}
    page.write_text(json.dumps(result, indent=2) + "\n")
    if with_report:
        page = evaluation_report.write(
            folder, run, args.run, episodes, numbers, about, gif=args.gif
        )
    # Removed last, so that a kill before this line loses no episode.
    unfinished.unlink(missing_ok=True)

    # 4. Print one line: numbers, seconds, and the page to open. `make demo` ends with it.
    print(f"{scores.line(numbers)}  {time.time() - start:.0f} s  {page}")
    return 1 if numbers["broken"] > ACCEPTED_BROKEN * numbers["episodes"] else 0


if __name__ == "__main__":
    flags.run(main)
