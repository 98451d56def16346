"""MetaWorld: its seeds, observations and experts, and what happens when parts are missing."""

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from dpjax import demos, evaluate, tasks
from dpjax.core.errors import UserError
from dpjax.data import rlds
from dpjax.tasks import metaworld

if importlib.util.find_spec("metaworld") is None:  # not imported: MUJOCO_GL is not chosen yet
    pytest.skip("the simulator is not installed: dpjax[metaworld]", allow_module_level=True)

FEATURES = {"state": "observation/state", "action": "action"}


@pytest.fixture(scope="module")
def push():
    return tasks.get("metaworld/push")


@pytest.fixture(scope="module")
def world(push):
    world = push.simulator.make()
    yield world
    world.close()


def episode(task, world, seed):
    """The expert's states [T + 1, 39] and successes [T]."""
    simulator = task.simulator
    act = simulator.expert()
    states = [simulator.reset(world, seed)["state"]]
    successes = []
    done = False
    while not done and len(successes) < simulator.max_steps:
        raw, success, done = simulator.step(world, act({"state": states[-1]}))
        states.append(raw["state"])
        successes.append(success)
    return np.array(states), successes


def test_the_names_are_the_package_s():
    package = metaworld._package()  # not a plain import: it chooses MUJOCO_GL first
    names = {name + metaworld.VERSION for name in metaworld.NAMES}
    assert names == set(package.env_dict.ALL_V3_ENVIRONMENTS)
    assert names == set(package.policies.ENV_POLICY_MAP)


def test_a_seed_is_the_same_episode_whatever_was_before(push, world):
    first, _ = episode(push, world, 300000)
    other, _ = episode(push, world, 300001)
    again, _ = episode(push, world, 300000)
    fresh = push.simulator.make()
    new, _ = episode(push, fresh, 300000)
    fresh.close()
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(first, new)
    assert np.abs(other[0] - first[0]).max() > 0.01  # m: another layout


def test_the_expert_succeeds_and_the_episode_ends_there(push, world):
    _, successes = episode(push, world, 300000)
    assert (
        successes[-1] == 1 and not any(successes[:-1]) and len(successes) < push.simulator.max_steps
    )
    simulator = push.simulator
    assert simulator.score(1.0) == 1.0 and simulator.success(1.0)
    assert simulator.score(0.0) == 0.0 and not simulator.success(0.0)


def test_the_goal_is_seen_and_the_observation_loses_nothing_of_the_present(push, world):
    state = push.simulator.reset(world, 300000)["state"]
    np.testing.assert_allclose(state[36:], world.env._target_pos, rtol=1e-6)
    obs = push.observe({"state": np.stack([state, state])})
    joined = np.concatenate([obs["hand"], obs["objects"], obs["goal"]], axis=-1)
    np.testing.assert_array_equal(joined[1], np.delete(state, np.s_[18:36]))
    assert {x.dtype for x in obs.values()} == {np.dtype(np.float32)}


def test_relative_positions_do_not_change_where_the_scene_is_moved(push):
    state = np.random.default_rng(0).normal(size=39)
    moved = state.copy()
    for xyz in (slice(0, 3), slice(4, 7), slice(11, 14), slice(36, 39)):
        moved[xyz] += [0.1, -0.2, 0.3]
    before, after = (push.observe({"state": x})["relative"] for x in (state, moved))
    np.testing.assert_allclose(before, after, atol=1e-6)


def test_actions_move_the_hand_as_documented(push, world):
    before = push.simulator.reset(world, 300000)["state"][:3]
    for _ in range(8):
        raw, _, _ = push.simulator.step(world, np.array([5.0, 0.0, 0.0, -1.0]))  # clipped to 1
    moved = raw["state"][:3] - before
    assert 0.02 < moved[0] < 0.08 and np.abs(moved[1:]).max() < 0.02  # m


@pytest.mark.parametrize(
    "name, text",
    [("pusj", "did you mean 'push'?"), ("", "choose one of assembly, "), ("push-v2", "push-v2")],
)
def test_an_unknown_name_lists_the_near_ones(name, text):
    with pytest.raises(UserError) as error:
        tasks.get(f"metaworld/{name}")
    assert text in str(error.value) and "\n" not in str(error.value)
    assert tasks.get("metaworld/push-v3").name == "metaworld/push"


def test_demos_of_an_expert_are_rlds_with_the_raw_columns(tmp_path, capsys, push, world):
    out = tmp_path / "demos"
    argv = ["--task", "metaworld/push", "--episodes", "2", "--keep", "success"]
    assert demos.main([*argv, "--out", str(out)]) == 0
    assert "2 episodes of 2 tried" in capsys.readouterr().out
    read = rlds.read(out, features=FEATURES)
    states, successes = episode(push, world, push.simulator.demo_seeds)
    assert read.ends[0] == len(successes)
    np.testing.assert_array_equal(read.columns["state"][: read.ends[0]], states[:-1])
    assert np.abs(read.columns["action"]).max() <= 1


def test_demos_count_what_failed(tmp_path):
    argv = ["--task", "metaworld/push", "--episodes", "2", "--keep", "success"]
    argv += ["--max-steps", "5", "--attempts", "3", "--out", str(tmp_path / "d")]
    with pytest.raises(UserError, match=r"0 of 3 episodes .* \(3 failed, 0 broken\)"):
        demos.main(argv)
    assert not (tmp_path / "d").exists()


def test_demos_refuse_what_does_not_fit(tmp_path):
    argv = ["--episodes", "1", "--keep", "success", "--out", str(tmp_path / "d")]
    with pytest.raises(UserError, match="pusht: it has no scripted expert"):
        demos.main(["--task", "pusht", *argv])
    with pytest.raises(UserError, match="go with --from-run"):
        demos.main(["--task", "metaworld/push", "--steps", "3", *argv])
    with pytest.raises(UserError, match="100000 is not a seed for demonstrations"):
        demos.main(["--task", "metaworld/push", "--first-seed", "100000", *argv])


def test_what_cannot_be_rendered_is_one_line():
    code = "from dpjax import tasks; s = tasks.get('metaworld/push').simulator; w = s.make()\n"
    code += "s.reset(w, 0); s.render(w)"
    done = subprocess.run(  # a new interpreter: mujoco reads MUJOCO_GL when it is imported
        [sys.executable, "-c", code],
        env={**os.environ, "MUJOCO_GL": "disable"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    last = done.stderr.splitlines()[-1]
    assert "UserError: MetaWorld cannot be rendered with MUJOCO_GL='disable'" in last
    assert "Exception ignored" not in done.stderr


def test_without_rendering_there_is_a_line_and_no_film(push, caplog):
    def render(world):
        raise UserError("MetaWorld cannot be rendered")

    dark = push.simulator._replace(render=render)
    assert evaluate.filmed_seeds(dark, range(100000, 100002)) == set()
    assert "no film: MetaWorld cannot be rendered" in caplog.text


def test_a_frame_shows_the_scene(push, world):
    push.simulator.reset(world, 300000)
    try:
        frame = push.simulator.render(world)
    except UserError as error:
        pytest.skip(str(error))
    assert frame.shape == (192, 192, 3) and frame.dtype == np.uint8 and frame.std() > 20
    act = push.simulator.expert()
    raw = push.simulator.reset(world, 300000)
    for _ in range(30):
        raw, _, _ = push.simulator.step(world, act(raw))
    assert (push.simulator.render(world) != frame).any()


def test_a_camera_changes_what_is_seen_and_nothing_else(push, world, tmp_path):
    seen = tasks.get("metaworld_image/push")
    out = tmp_path / "demos"
    argv = ["--task", seen.name, "--episodes", "1", "--keep", "success", "--out", str(out)]
    try:
        demos.main(argv)
    except UserError as error:
        if "cannot be rendered" not in str(error):
            raise
        pytest.skip(str(error))
    read = rlds.read(out, features={**FEATURES, "image": "observation/image"})
    states, _ = episode(push, world, push.simulator.demo_seeds)
    np.testing.assert_array_equal(read.columns["state"], states[:-1])
    images = read.columns["image"].read(np.arange(len(states) - 1))
    assert images.shape[1:] == (96, 96, 3) and images.dtype == np.uint8
    assert images.std() > 20 and (images[0] != images[-1]).any()
    obs = seen.observe({"image": images, "state": states[:-1]})
    assert obs["image"] is images and set(obs) == {"image", "hand"}
    np.testing.assert_array_equal(obs["hand"], states[:-1, :4])


def test_a_missing_simulator_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "metaworld", None)
    metaworld._package.cache_clear()
    with pytest.raises(UserError, match=r"pip install 'dpjax\[metaworld\]'"):
        tasks.get("metaworld/push").simulator.make()
    metaworld._package.cache_clear()
