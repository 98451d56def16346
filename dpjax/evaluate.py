"""Scores a trained policy on the official seeds; leaves JSON, a film and a report.

python -m dpjax.evaluate --run runs/demo --episodes 50 [--steps S] [--sampler ddim]
"""

import argparse
import functools
import json
import logging
from pathlib import Path
import time

import jax
import numpy as np

from dpjax import tasks
from dpjax.config import build, flags
from dpjax.core.errors import UserError
from dpjax.evaluation import provenance, report, resume, rollout, scores, video
from dpjax.runs import figures
from dpjax.runs import run as run_lib
from dpjax.training import metrics

log = logging.getLogger("dpjax")


def arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dpjax.evaluate", description="Score a run on the official seeds."
    )
    parser.add_argument("--run", required=True, help="run folder that dpjax.train made")
    parser.add_argument("--episodes", type=int, default=50, help="one a seed (default 50)")
    parser.add_argument("--steps", type=int, help="sampling steps S (default: the run's)")
    parser.add_argument("--sampler", choices=sorted(build.SAMPLERS), help="default: the run's")
    parser.add_argument("--warm-start", type=float, help="share of S skipped (default: the run's)")
    parser.add_argument("--weights", choices=("ema", "raw"), default="ema")
    parser.add_argument("--checkpoint", type=int, help="step (default: the newest good one)")
    parser.add_argument("--first-seed", type=int, help="default: the task's official seeds")
    parser.add_argument("--num-envs", type=int, default=50, help="in flight at once")
    parser.add_argument("--film", type=int, default=15, help="episodes in the film, 0 for none")
    parser.add_argument("--gif", help="also the film as a small gif, for pages without video")
    parser.add_argument("--out", help="folder for what is made (default: the run folder)")
    parser.add_argument("--since", type=float, help=argparse.SUPPRESS)  # make demo's start
    given = parser.parse_args(argv)
    for name in ("episodes", "num_envs"):
        if getattr(given, name) < 1:
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag} {getattr(given, name)} must be at least 1.")
    if given.warm_start is not None and not 0 <= given.warm_start < 1:
        raise UserError(f"--warm-start {given.warm_start} must be in [0, 1).")
    return given


def sampler_label(sampler: str, steps: int, warm_start: float) -> str:
    """How plans are made, in file names and reports: ddim-10, or ddim-10-warm-0.5."""
    return f"{sampler}-{steps}" + (f"-warm-{warm_start:g}" if warm_start else "")


def names(run: run_lib.Run, given: argparse.Namespace) -> tuple[str, Path, Path]:
    """The sampler's label, and the files of the numbers and of an unfinished evaluation."""
    sampler = run.config.sampler
    label = sampler_label(sampler.name, sampler.num_steps, sampler.warm_start)
    name = f"evaluation-{label}-{given.weights}-{given.episodes}"
    out = Path(given.out or given.run)
    return label, out / f"{name}.json", out / f"{name}.partial.jsonl"


def filmed_seeds(task, seeds) -> set[int]:
    """The seeds to film: none, and a line why, where nothing here can render the task."""
    if not seeds:
        return set()
    env = task.make()
    try:
        task.reset(env, seeds[0])
        task.render(env)
    except UserError as error:
        log.warning("no film: %s", error)
        return set()
    finally:
        getattr(env, "close", lambda: None)()
    return set(seeds)


def evaluate(run: run_lib.Run, given: argparse.Namespace) -> tuple[list, float]:
    """The episodes, and the seconds that they took, compilation included.

    Those that an evaluation with the same settings had finished when it was killed are
    not done again, but for the filmed ones.
    """
    task = tasks.get(run.config.task)
    first = task.official_seeds if given.first_seed is None else given.first_seed
    seeds = range(first, first + given.episodes)
    unfinished = names(run, given)[2]
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    settings = {"checkpoint": run.step, "config": run.config.to_dict(), **vars(given)}
    settings.pop("since")
    settings = json.loads(json.dumps(settings))  # as it is read back: tuples are lists
    filmed = filmed_seeds(task, seeds[: given.film])
    episodes = {e.seed: e for e in resume.begin(unfinished, settings) if e.seed not in filmed}
    missing = [seed for seed in seeds if seed not in episodes]
    start = time.perf_counter()
    if missing:
        run.warm_up([min(given.num_envs, len(missing))])  # just as many rows: none is padding
        new = rollout.rollout(
            task,
            run.plan,
            seeds=missing,
            observed=run.config.horizon.obs,
            executed=run.config.horizon.act,
            num_envs=given.num_envs,
            rng=jax.random.key(run.config.seed),
            record=filmed,
            keep=filmed,
            on_end=functools.partial(resume.add, unfinished),
        )
        episodes.update((episode.seed, episode) for episode in new)
    return [episodes[seed] for seed in seeds], time.perf_counter() - start


def write(run, given, episodes, seconds) -> tuple[dict, Path]:
    """evaluation JSON, film and report; returns the numbers and the report's path."""
    label, path, unfinished = names(run, given)
    numbers = scores.summary(episodes)
    made_with = {
        "run": str(given.run),
        "checkpoint": run.step,
        "weights": given.weights,
        "sampler": label,
        "seeds": f"{episodes[0].seed}-{episodes[-1].seed}",
        "evaluation_seconds": round(seconds, 1),
        **provenance.provenance(),
    }
    result = {**numbers, **made_with, "by_seed": scores.rows(episodes)}
    path.write_text(json.dumps(result, indent=2) + "\n")
    page = write_report(run, given, episodes, path.parent, label, numbers, made_with)
    unfinished.unlink(missing_ok=True)
    return numbers, page


def write_report(run, given, episodes, out, label, numbers, made_with) -> Path:
    """report.html, with a film of the recorded episodes."""
    filmed = [episode for episode in episodes if episode.frames]
    film, stills, missing = None, [], {}
    if filmed:
        film = out / "rollouts.mp4"
        clips = [episode.frames for episode in filmed]
        labels = {
            "progress": [episode.progress for episode in filmed],
            "success": [episode.success for episode in filmed],
        }
        video.grid_video(film, clips, **labels)
        if given.gif:
            video.grid_gif(given.gif, clips, **labels)
        stills = figures.stills(run, filmed[0])
        missing = {} if stills else {"picture of plans": "none: the task has no `place`"}
    entries = metrics.read(Path(given.run) / "metrics.jsonl")
    curves = {"training": "loss", "validation": "val_loss"}
    curves = {name: metrics.series(entries, key) for name, key in curves.items()}
    trained = max([entry.get("seconds", 0.0) for entry in entries], default=0.0)
    valid = [episode for episode in episodes if not episode.broken]
    best = [float(np.max(episode.progress, initial=0.0)) for episode in valid]
    page = out / "report.html"
    report.write_report(
        page,
        title=f"{run.config.task}: {given.run}",
        summary=scores.line(numbers),
        scores={label: numbers},
        curves={name: curve for name, curve in curves.items() if len(curve[0])},
        coverages=() if set(best) <= {0.0, 1.0} else best,  # else the success rate says it all
        video=film,
        stills=stills,
        facts={**made_with, "training_seconds": round(trained, 1), **missing},
    )
    return page


def main(argv=None) -> int:
    given = arguments(argv)
    logging.basicConfig(level=logging.WARNING, format="dpjax: %(message)s", force=True)
    start = given.since or time.time()
    run = run_lib.load(
        given.run,
        sampler=given.sampler,
        steps=given.steps,
        warm_start=given.warm_start,
        which=given.weights,
        step=given.checkpoint,
    )
    episodes, seconds = evaluate(run, given)
    numbers, page = write(run, given, episodes, seconds)
    print(f"{scores.line(numbers)}  {time.time() - start:.0f} s  {page}")
    return 1 if numbers["broken"] > 0.05 * numbers["episodes"] else 0


if __name__ == "__main__":
    flags.run(main)
