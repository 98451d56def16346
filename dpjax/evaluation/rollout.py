"""Episodes of a policy in a simulator: many environments, one process, in lockstep.

The environments act together and are planned for together, `executed` steps at a time. One
whose episode is over waits for the end of the chunk and takes the next seed there, so that
the batches of plans stay full and all queues run dry at the same step.

An episode's randomness comes from its seed alone, so its result does not depend on how
many environments run beside it. What the simulator or a broken plan spoils is recorded as
broken, with the reason: it is no failure of the policy and is left out of the scores.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from dpjax.core.errors import UserError
from dpjax.core.types import PRNGKey, row_keys
from dpjax.inference.controller import Controller, finite_rows


@dataclass(frozen=True)
class Episode:
    """What happened.

    progress: float32 [T] after each step.
    columns: {raw name: [T, ...]} the raw observations, each before its action; {} where
        they were not kept.
    actions: float32 [T, Da] as planned; never clipped.
    score, success: by the largest progress; nan and False if broken.
    broken: why the episode does not count, or None.
    out_of_bounds: steps whose action left the range the task is made for.
    frames: uint8 [H, W, 3] before each action and at the end, with the plan drawn, for
        the seeds in `record`.
    """

    seed: int
    steps: int
    progress: np.ndarray
    columns: dict[str, np.ndarray]
    actions: np.ndarray
    score: float
    success: bool
    broken: str | None = None
    out_of_bounds: int = 0
    frames: list[np.ndarray] | None = None


@dataclass
class _Run:
    """An episode as it happens. index: its place in the list of seeds."""

    index: int
    seed: int
    raw: dict[str, np.ndarray] | None = None
    columns: list = field(default_factory=list)
    actions: list = field(default_factory=list)
    progress: list = field(default_factory=list)
    frames: list | None = None
    kept: bool = True
    broken: str | None = None
    over: bool = False


def rollout(
    task: Any,
    plan: Callable,
    *,
    seeds: Iterable[int],
    observed: int,
    executed: int,
    rng: PRNGKey,
    num_envs: int = 50,
    progress: bool = True,
    record: Iterable[int] = (),
    keep: Iterable[int] | None = None,
    on_end: Callable[[Episode], None] = lambda episode: None,
) -> list[Episode]:
    """One episode for each of `seeds`, in their order; frames are kept of those in `record`.

    keep: the seeds of which the observations are kept, by default all: 300 images of 96²
    are 8 MB an episode.
    task: has the fields of dpjax.tasks.Task. plan: (keys [B], obs, previous) -> [B, Tp, Da].
    observed, executed: To and Ta. progress: whether to show a bar. on_end: sees each
    episode when it is over.
    """
    seeds, record = [int(seed) for seed in seeds], set(record)
    keep = set(seeds if keep is None else keep)
    if not seeds or num_envs < 1:
        raise UserError(f"{len(seeds)} seeds, {num_envs} environments: at least 1 of each.")
    waiting, episodes = deque(enumerate(seeds)), [None] * len(seeds)
    envs = [None] * min(num_envs, len(seeds))
    runs: list[_Run | None] = [None] * len(envs)
    bad = np.zeros(len(envs), bool)
    controller = Controller(_guard(plan, bad), observed=observed, executed=executed)
    controller.reset(row_keys(rng, np.array(seeds[: len(envs)], np.uint32)))
    bar = tqdm(total=len(seeds), desc=task.name, unit="episode", disable=not progress)
    while _fill(task, controller, envs, runs, waiting, episodes, rng, record, keep):
        for _ in range(executed):
            _advance(task, controller, envs, runs, bad)
        for row, run in enumerate(runs):
            if run is not None and run.over:
                episodes[run.index], runs[row] = _episode(task, run), None
                on_end(episodes[run.index])
        _show(bar, episodes)
    bar.close()
    for env in envs:
        getattr(env, "close", lambda: None)()
    return episodes


def _guard(plan, bad):
    """The plan with zeros for rows that are not finite, which `bad` [B] then names.

    So one row's NaN breaks one episode and not, in the controller, the whole batch.
    """

    def guarded(keys, obs, previous=None):
        chunk = np.array(plan(keys, obs, previous))
        bad[:] = ~finite_rows(chunk)
        chunk[bad] = 0
        return chunk

    return guarded


def _fill(task, controller, envs, runs, waiting, episodes, rng, record, keep):
    """Gives free rows the next seeds; whether any row is live."""
    started = []
    for row in [row for row, run in enumerate(runs) if run is None]:
        while waiting and runs[row] is None:
            run = _start(task, envs, row, *waiting.popleft(), record, keep)
            if run.broken:
                episodes[run.index] = _episode(task, run)
            else:
                runs[row] = run
                started.append(row)
    if started:
        new_seeds = np.array([runs[row].seed for row in started], np.uint32)
        controller.reset(row_keys(rng, new_seeds), rows=started)
    return any(run is not None for run in runs)


def _start(task, envs, row, index, seed, record, keep):
    run = _Run(index, seed, frames=[] if seed in record else None, kept=seed in keep)
    try:
        if envs[row] is None:
            envs[row] = task.make()
        run.raw = task.reset(envs[row], seed)
    except UserError:
        raise  # a simulator that isn't installed is nobody's broken episode
    except Exception as error:
        _break(run, f"reset: {_named(error)}")
        envs[row] = None
    return run


def _advance(task, controller, envs, runs, bad):
    """One step of every row whose episode is not over."""
    raws = [run.raw for run in runs if run is not None]
    raws = [raws[0] if run is None else run.raw for run in runs]  # idle rows: somebody's
    raw = {name: np.stack([row[name] for row in raws]) for name in raws[0]}
    actions = controller.act(task.observe(raw))
    for row, run in enumerate(runs):
        if run is None or run.over:
            continue
        if bad[row]:
            _break(run, f"step {len(run.progress)}: the plan is not finite")
            continue
        try:
            _step(task, envs[row], run, actions[row], controller.chunk[row])
        except Exception as error:
            _break(run, f"step {len(run.progress)}: {_named(error)}")
            envs[row] = None  # the next seed gets a new one


def _step(task, env, run, action, chunk):
    if run.frames is not None:
        run.frames.append(task.draw_actions(task.render(env), chunk))
    raw, progress, done = task.step(env, action)
    if not np.isfinite(progress):
        raise ValueError(f"progress is {progress}")
    if run.kept:
        run.columns.append(run.raw)
    run.actions.append(action)
    run.progress.append(progress)
    run.raw = raw
    run.over = done or len(run.progress) >= task.max_steps
    if run.over and run.frames is not None:
        run.frames.append(task.render(env))


def _break(run, reason):
    run.broken, run.over = reason, True


def _named(error):
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _episode(task, run):
    """The record of a run that is over."""
    actions = np.array(run.actions, np.float32)
    outside = [((a < task.action_low) | (a > task.action_high)).any() for a in actions]
    best = max(run.progress, default=0.0)
    names = run.columns[0] if run.columns else ()
    return Episode(
        seed=run.seed,
        steps=len(run.progress),
        progress=np.array(run.progress, np.float32),
        columns={name: np.stack([raw[name] for raw in run.columns]) for name in names},
        actions=actions,
        score=float("nan") if run.broken else task.score(best),
        success=False if run.broken else task.success(best),
        broken=run.broken,
        out_of_bounds=int(sum(outside)),
        frames=run.frames,
    )


def _show(bar, episodes):
    """The bar: episodes done, and the scores of those that count."""
    done = [episode for episode in episodes if episode is not None]
    valid = [episode for episode in done if not episode.broken]
    if valid and len(done) > bar.n:
        score, success = np.mean([(e.score, e.success) for e in valid], axis=0)
        bar.set_postfix_str(f"score {score:.3f} success {success:.3f}", refresh=False)
    bar.update(len(done) - bar.n)
