"""Stills for the report: noise that becomes a plan, and what the network sees of an episode."""

import logging

import jax
import numpy as np

from dpjax import tasks
from dpjax.config import build, cameras
from dpjax.diffusion import sampling
from dpjax.evaluation import plots
from dpjax.policies import representations
from dpjax.runs import run as run_lib

PANELS = 6  # noise levels of the one still, moments of the other
CHUNKS = 24  # sampled chunks in each noise level

log = logging.getLogger("dpjax")


def stills(run: run_lib.Run, episode) -> list[tuple[str, bytes]]:
    """(caption, png) of what there is to show of an episode, or none and a line why."""
    task = tasks.get(run.config.task)
    if tasks.require_simulator(task).place is None:
        log.warning("no picture of plans: %s cannot be put into a recorded state", task.name)
        return []
    caption = f"{CHUNKS} chunks sampled from one observation, while noise becomes a plan"
    found = [(caption, noise_still(run, episode))]
    if run.spec.cameras:
        caption = "What the network sees of the newest frame, and the points that it tracks"
        found.append((caption, seen_still(run, episode)))
    return found


def noise_still(run: run_lib.Run, episode) -> bytes:
    """The chunks that the policy samples in the middle of an episode, as they emerge.

    For tasks with `place` only: the frame is that of a recorded step.
    """
    task, horizon = tasks.get(run.config.task), run.config.horizon
    at = min(episode.steps - 1, 40)
    obs = observations(task, episode, [at] * CHUNKS, horizon.obs)
    policy = build.policy(run.config, None, run.spec, sampling_loop=sampling.trace)
    way = np.asarray(jax.jit(policy.sample)(run.params, jax.random.key(0), obs))
    steps = np.unique(np.linspace(0, len(way) - 1, PANELS).astype(int))
    panels = [(f"step {i + 1} of {len(way)}", way[i]) for i in steps]
    simulator = tasks.require_simulator(task)
    env = simulator.make()
    simulator.place(env, {key: column[at] for key, column in episode.columns.items()})
    return plots.actions_over_scene(simulator.render(env), panels, extent=simulator.action_high)


def observations(task, episode, steps, observed: int) -> dict[str, np.ndarray]:
    """{name: [B, To, ...]} what the policy saw at those steps [B] of an episode."""
    rows = np.clip(np.asarray(steps)[:, None] + np.arange(1 - observed, 1), 0, None)
    return task.observe({key: column[rows] for key, column in episode.columns.items()})


def seen_still(run: run_lib.Run, episode) -> bytes:
    """Crops, the points where the encoder looks, and the plans, over an episode."""
    task = tasks.get(run.config.task)
    simulator = tasks.require_simulator(task)
    steps = np.unique(np.linspace(0, episode.steps - 1, PANELS).astype(int))
    obs = observations(task, episode, steps, run.config.horizon.obs)
    seen = representations.encode_obs(build.representation(run.config), obs)
    crops, points = jax.device_get(cameras.what_it_sees(run.config, run.spec, run.params, seen))
    chunks, env, moments = run.sample_actions(jax.random.key(0), obs), simulator.make(), []
    for i, step in enumerate(steps):
        simulator.place(env, {key: column[step] for key, column in episode.columns.items()})
        scene = simulator.draw_actions(simulator.render(env), chunks[i])
        looks = {key: (crops[key][i], points[key][i]) for key in crops}
        moments.append((f"step {step}", scene, looks))
    return plots.cameras(moments)
