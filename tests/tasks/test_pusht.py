"""Push-T is the paper's: its resets, its physics, its observation, its two metrics."""

from pathlib import Path

import numpy as np
import pytest

from dpjax.core.errors import UserError
from dpjax.tasks import pusht

GOLDEN = Path(__file__).parents[1] / "golden" / "pusht_replay.npz"


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return dict(file)


@pytest.fixture(scope="module")
def env():
    pytest.importorskip("gym_pusht", reason="the simulator is not installed: dpjax[sim]")
    return pusht.make()


@pytest.mark.parametrize(
    "seed, state",
    [
        (100000, [235, 124, 335, 128, -0.9049274284249247]),
        (100001, [365, 182, 275, 280, -1.0981131397099535]),
    ],
)
def test_official_resets_are_the_published_draws(seed, state):
    np.testing.assert_allclose(pusht.initial_state(seed), state, rtol=1e-12)


def test_an_episode_starts_at_the_draw_and_the_same_each_time(env):
    first = pusht.reset(env, 100000)["state"]
    pusht.step(env, np.array([300.0, 300.0]))
    again = pusht.reset(env, 100000)["state"]
    np.testing.assert_array_equal(first, again)
    drawn = pusht.initial_state(100000)
    np.testing.assert_allclose(first[:2], drawn[:2])
    np.testing.assert_allclose(first[4], drawn[4] % (2 * np.pi), rtol=1e-6)
    # The legacy order turns the block about its centre of mass, (0, 45) in its own frame,
    # which stays where the unturned block had it.
    turn = drawn[4]
    back = 45 * np.array([np.sin(turn), 1 - np.cos(turn)])
    np.testing.assert_allclose(first[2:4], drawn[2:4] + back, atol=1e-3)


def test_replayed_human_actions_move_the_block_as_recorded(env, golden):
    states = [pusht.place(env, golden["state"][0])["state"]]
    states += [pusht.step(env, action)[0]["state"] for action in golden["action"]]
    assert np.ptp(golden["state"][:, 2:4], axis=0).max() > 20  # px: it was pushed
    np.testing.assert_allclose(np.array(states), golden["state"], atol=1e-3)


def test_keypoints_are_the_recorded_ones(golden):
    observed = pusht.observe({"state": golden["state"]})
    np.testing.assert_allclose(
        observed["keypoints"].reshape(-1, 9, 2), golden["keypoint"], atol=0.1
    )
    np.testing.assert_array_equal(observed["agent_pos"], golden["state"][:, :2])


def test_keypoints_lie_on_the_block(env):
    """Within 3 px of the simulator's T, and reaching all of its ends."""
    low, high = pusht.LOCAL_KEYPOINTS.min(0), pusht.LOCAL_KEYPOINTS.max(0)
    corners = np.concatenate([np.array(shape.get_vertices()) for shape in env.block.shapes])
    np.testing.assert_allclose([low, high], [corners.min(0), corners.max(0)], atol=3)
    for point in pusht.LOCAL_KEYPOINTS:
        boxes = [np.array(shape.get_vertices()) for shape in env.block.shapes]
        gaps = [np.maximum(box.min(0) - point, point - box.max(0)).max() for box in boxes]
        assert min(gaps) < 3


def test_the_observation_does_not_jump_where_the_angle_does():
    poses = np.array([[200, 200, 256, 256, 1e-4], [200, 200, 256, 256, 2 * np.pi - 1e-4]])
    points = pusht.observe({"state": poses})["keypoints"]
    np.testing.assert_allclose(points[0], points[1], atol=0.1)
    assert points.dtype == np.float32


def test_mirrored_actions_move_the_mirrored_block_the_same_way(env, golden):
    """Equation (3) is a symmetry of the simulator, not only of the drawing."""
    seen = pusht.mirror({"state": golden["state"], "action": golden["action"]})
    assert np.ptp(seen["state"][:, 2:4], axis=0).max() > 20  # px: it is pushed
    state = pusht.place(env, seen["state"][0])["state"]
    for expected, action in zip(seen["state"], seen["action"]):
        np.testing.assert_allclose(state, expected, atol=1e-3)
        state = pusht.step(env, action)[0]["state"]


def test_a_mirror_twice_is_no_mirror(golden):
    once = {"state": golden["state"], "action": golden["action"]}
    twice = pusht.mirror(pusht.mirror(once))
    np.testing.assert_allclose(twice["action"], once["action"], atol=1e-4)
    np.testing.assert_allclose(twice["state"], once["state"], atol=1e-4)
    goal = {"state": np.array([90.0, 422.0, 256.0, 256.0, np.pi / 4]), "action": np.zeros(2)}
    np.testing.assert_allclose(pusht.mirror(goal)["state"], goal["state"])


def test_the_two_metrics_are_different_numbers():
    assert pusht.SIMULATOR.score(0.475) == pytest.approx(0.5)
    assert pusht.SIMULATOR.score(0.95) == 1.0 and not pusht.SIMULATOR.success(0.95)
    assert pusht.SIMULATOR.score(0.99) == 1.0 and pusht.SIMULATOR.success(0.951)


def test_a_block_on_its_goal_is_solved(env):
    pusht.place(env, np.array([60, 60, 256, 256, np.pi / 4]))
    _, coverage, done = pusht.step(env, np.array([60.0, 60.0]))
    assert done and coverage == pytest.approx(1.0, abs=1e-6)


def test_a_frame_shows_the_scene_and_the_plan(env):
    pusht.reset(env, 100000)
    frame = pusht.render(env)
    assert frame.shape == (384, 384, 3) and frame.dtype == np.uint8
    before = frame.copy()
    drawn = pusht.draw_actions(frame, np.array([[256.0, 450.0], [300.0, 450.0]]))
    np.testing.assert_array_equal(frame, before)
    changed = np.argwhere((drawn != frame).any(-1)) * 512 / 384
    np.testing.assert_allclose(changed.mean(0), [450, 278], atol=4)  # row is y, column is x


def test_a_missing_simulator_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gym_pusht.envs.pusht", None)
    with pytest.raises(UserError, match=r"pip install 'dpjax\[sim\]'"):
        pusht.make()
