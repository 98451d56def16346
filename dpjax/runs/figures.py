"""Pictures for the report: noise that becomes actions, and what the network sees."""

from collections.abc import Sequence
import logging

import jax
import numpy as np

from dpjax import tasks
from dpjax.config import build, cameras
from dpjax.diffusion import sampling
from dpjax.evaluation import plots
from dpjax.evaluation.rollout import Episode
from dpjax.policies import representations
from dpjax.runs.run import Run
from dpjax.tasks.base import Task

NUM_PANELS = 6  # noise levels of one picture, moments of the other
NUM_CHUNKS = 24  # chunks that are sampled for one observation
LATEST_STEP = 40  # the observed step, or the last one of a shorter episode

log = logging.getLogger("dpjax")


def stills(run: Run, episode: Episode) -> list[tuple[str, bytes]]:
    """[(caption, png)] of an episode; empty, with a logged line, if its task cannot be drawn."""
    if tasks.require_simulator(run.task).place is None:
        log.warning("no picture of chunks: %s cannot be put into a recorded state", run.task.name)
        return []
    caption = f"{NUM_CHUNKS} chunks sampled from one observation, while noise becomes actions"
    pictures = [(caption, noise_still(run, episode))]
    if run.spec.cameras:
        caption = "What the network sees of the newest frame, and the points that it tracks"
        pictures.append((caption, camera_still(run, episode)))
    return pictures


def noise_still(run: Run, episode: Episode) -> bytes:
    """A png: chunks for one observation at several noise levels, drawn over its scene.

    Only for tasks whose simulator can be put into a recorded state (`Simulator.place`).
    """
    step = min(episode.steps - 1, LATEST_STEP)
    obs = observations(run.task, episode, [step] * NUM_CHUNKS, run.config.horizon.obs)
    # A policy whose `sample` returns the chunks after each step of sampling: [S, B, Tp, Da].
    policy = build.policy(run.config, None, run.spec, sampling_loop=sampling.trace)
    chunks = np.asarray(jax.jit(policy.sample)(run.params, jax.random.key(0), obs))
    levels = np.unique(np.linspace(0, len(chunks) - 1, NUM_PANELS).astype(int))
    panels = [(f"step {i + 1} of {len(chunks)}", chunks[i]) for i in levels]

    simulator = tasks.require_simulator(run.task)
    env = simulator.make()
    simulator.place(env, {key: column[step] for key, column in episode.columns.items()})
    return plots.actions_over_scene(simulator.render(env), panels, extent=simulator.action_high)


def observations(
    task: Task, episode: Episode, steps: Sequence[int], observed: int
) -> dict[str, np.ndarray]:
    """{name: [B, To, …]}: what the policy observed at those steps [B] of an episode."""
    # The newest To steps; before the start the first step is repeated.
    indices = np.clip(np.asarray(steps)[:, None] + np.arange(1 - observed, 1), 0, None)
    return task.observe({key: column[indices] for key, column in episode.columns.items()})


def camera_still(run: Run, episode: Episode) -> bytes:
    """A png: over an episode, the crops, the points where the encoder looks, and the chunks."""
    steps = np.unique(np.linspace(0, episode.steps - 1, NUM_PANELS).astype(int))
    obs = observations(run.task, episode, steps, run.config.horizon.obs)
    encoded = representations.encode_obs(build.representation(run.config), obs)
    crops, points = jax.device_get(cameras.what_it_sees(run.config, run.spec, run.params, encoded))
    chunks = run.sample_actions(jax.random.key(0), obs)

    simulator = tasks.require_simulator(run.task)
    env = simulator.make()
    moments = []
    for i, step in enumerate(steps):
        simulator.place(env, {key: column[step] for key, column in episode.columns.items()})
        scene = simulator.draw_actions(simulator.render(env), chunks[i])
        views = {key: (crops[key][i], points[key][i]) for key in crops}
        moments.append((f"step {step}", scene, views))
    return plots.cameras(moments)
