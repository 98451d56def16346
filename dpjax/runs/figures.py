"""Pictures for the report: how noise becomes actions, and what the network sees."""

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

NUM_PANELS = 6  # noise levels in the first picture, moments in the second
NUM_CHUNKS = 24  # sampled for one observation: enough to show several modes
LATEST_STEP = 40  # the step that is drawn, or the last one of a shorter episode

log = logging.getLogger("dpjax")


def stills(run: Run, episode: Episode) -> list[tuple[str, bytes]]:
    """[(caption, png)] of an episode; empty, with a warning, if its task cannot be drawn."""
    # The scene of a past step is drawn by putting the simulator back into it.
    if tasks.require_simulator(run.task).place is None:
        log.warning("no picture of chunks: %s cannot be put into a recorded state", run.task.name)
        return []
    caption = f"{NUM_CHUNKS} chunks sampled from one observation, while noise becomes actions"
    pictures = [(caption, noise_still(run, episode))]
    # A policy of numbers has no network that sees.
    if run.spec.cameras:
        caption = "What the network sees of the newest frame, and the points that it tracks"
        pictures.append((caption, camera_still(run, episode)))
    return pictures


def noise_still(run: Run, episode: Episode) -> bytes:
    """A png: action chunks for one observation at several noise levels, drawn over its scene.

    Only for tasks whose simulator can be put into a recorded state (`Simulator.place`).
    """
    # 1. One observation, NUM_CHUNKS times.
    step = min(episode.steps - 1, LATEST_STEP)
    obs = observations(run.task, episode, [step] * NUM_CHUNKS, run.config.horizon.obs)
    # 2. `trace` in place of the sampling loop makes `sample` return the chunks after each of its
    # steps, [S, B, Tp, Da]. Some of these, evenly spread, become panels.
    policy = build.policy(run.config, None, run.spec, sampling_loop=sampling.trace)
    chunks = np.asarray(jax.jit(policy.sample)(run.params, jax.random.key(0), obs))
    levels = np.unique(np.linspace(0, len(chunks) - 1, NUM_PANELS).astype(int))
    panels = [(f"step {i + 1} of {len(chunks)}", chunks[i]) for i in levels]

    # 3. The scene of that observation, in which the actions are positions.
    simulator = tasks.require_simulator(run.task)
    env = simulator.make()
    simulator.place(env, {key: column[step] for key, column in episode.columns.items()})
    return plots.actions_over_scene(simulator.render(env), panels, extent=simulator.action_high)


def observations(
    task: Task, episode: Episode, steps: Sequence[int], observed: int
) -> dict[str, np.ndarray]:
    """{name: [B, To, …]}: what the policy observed at those steps [B] of an episode."""
    # Indices [B, To] of the newest To steps; before the start the first step is repeated.
    indices = np.clip(np.asarray(steps)[:, None] + np.arange(1 - observed, 1), 0, None)
    return task.observe({key: column[indices] for key, column in episode.columns.items()})


def camera_still(run: Run, episode: Episode) -> bytes:
    """A png: at some moments of an episode, the action chunk, and each camera's crop and keypoints.

    Keypoints are the points of the image that the encoder's spatial softmax tracks.
    """
    # 1. What the network sees, and the actions that it samples, at evenly spread steps.
    steps = np.unique(np.linspace(0, episode.steps - 1, NUM_PANELS).astype(int))
    obs = observations(run.task, episode, steps, run.config.horizon.obs)
    # The encoder takes observations in the representation of the training.
    encoded = representations.encode_obs(build.representation(run.config), obs)
    crops, points = jax.device_get(cameras.what_it_sees(run.config, run.spec, run.params, encoded))
    chunks = run.sample_actions(jax.random.key(0), obs)

    # 2. The scene of each step, with its action chunk drawn into it.
    simulator = tasks.require_simulator(run.task)
    env = simulator.make()
    moments = []
    for i, step in enumerate(steps):
        simulator.place(env, {key: column[step] for key, column in episode.columns.items()})
        scene = simulator.draw_actions(simulator.render(env), chunks[i])
        views = {key: (crops[key][i], points[key][i]) for key in crops}  # one per camera
        moments.append((f"step {step}", scene, views))
    return plots.cameras(moments)
