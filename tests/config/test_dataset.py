"""Demonstrations of one's own: columns found, goals held, sets mixed, keys normalized apart."""

import logging

from ml_collections import ConfigDict
import numpy as np
import pytest
from support import tiny, tiny_custom

from dpjax.config import checks, dataset, flags, sources
from dpjax.core.errors import UserError
from dpjax.data import rlds
from dpjax.runs import run as run_lib
from dpjax.training import checkpoint


def write(directory, seed=0, lengths=(9, 12, 11, 10), camera=False, scale=1.0):
    """A set with a pose of 7 numbers, actions of 7, and perhaps a camera."""
    rng = np.random.default_rng(seed)

    def episode(length):
        pose = rng.normal(size=(length, 7)).astype(np.float32) * scale
        columns = {"pose": pose, "action": pose + 0.1}
        if camera:
            columns["cam"] = rng.integers(0, 256, (length, 16, 16, 3), np.uint8)
        return columns

    observed = ["pose", "cam"] if camera else ["pose"]
    episodes = (episode(n) for n in lengths)
    rlds.write(directory, episodes, observations=observed, description="made up")
    return str(directory)


def config_of(directory, **changes):
    """tiny_custom's config of that directory, resolved."""
    config = tiny_custom.get_config()
    config.data.dir = directory
    config.data.update(changes)
    return sources.resolved(config)


def test_a_set_without_named_columns_is_observed_whole(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    config = config_of(write(tmp_path / "set", camera=True))
    checks.check(config)
    assert config.data.columns.to_dict() == {
        "pose": "observation/pose",
        "cam": "observation/cam",
        "action": "action",
    }
    assert config.cameras.cam.size == (16, 16)
    assert "observation/pose [7]" in caplog.text
    data = dataset.read(config)
    spec = dataset.spec(data)
    assert spec.observations == {"pose": 7, "cam": (16, 16, 3)} and spec.action == 7


def test_columns_that_are_named_are_left_as_they_are(tmp_path):
    named = ConfigDict(dict(state="observation/pose", action="action"))
    config = tiny_custom.get_config()
    config.data.columns = named
    assert sources.resolved(config).data.columns.to_dict() == named.to_dict()


def test_the_given_config_is_not_changed(tmp_path):
    config = tiny_custom.get_config()
    config.data.dir = write(tmp_path / "set")
    sources.resolved(config)
    assert not config.data.columns


def test_a_goal_is_what_the_episode_reached(tmp_path):
    config = config_of(write(tmp_path / "set"), goals=ConfigDict(dict(goal="pose")))
    data = dataset.read(config)
    train = data.train
    assert data.obs_keys == ("pose", "goal")
    for start, end in zip(train.starts, train.ends):
        want = np.broadcast_to(train.columns["pose"][end - 1], (end - start, 7))
        np.testing.assert_array_equal(train.columns["goal"][start:end], want)


@pytest.mark.parametrize("goals", [{"goal": "poes"}, {"pose": "pose"}, {"goal": "action"}])
def test_a_goal_needs_a_new_name_and_an_observation(tmp_path, goals):
    config = config_of(write(tmp_path / "set"), goals=ConfigDict(goals))
    with pytest.raises(UserError, match="give a new name for the goal, and one of .* pose"):
        dataset.read(config)


def test_goals_need_a_task_without_a_simulator():
    config = tiny_custom.get_config()
    config.task = "pusht"
    config.data.columns = ConfigDict(dict(state="observation/state", action="action"))
    config.data.goals = ConfigDict(dict(goal="state"))
    with pytest.raises(UserError, match="gives no goals"):
        checks.check(config)


@pytest.mark.parametrize("camera", [False, True])
def test_a_mixture_is_its_sets_end_to_end(tmp_path, camera):
    names = [write(tmp_path / f"set{i}", seed=i, camera=camera) for i in range(2)]
    mixed = dataset.read(config_of(",".join(names), weights="3,1"))
    parts = [dataset.read(config_of(name)) for name in names]
    for side in ("train", "val"):
        both = [getattr(part, side) for part in parts]
        got = getattr(mixed, side)
        np.testing.assert_array_equal(got.lengths, np.concatenate([e.lengths for e in both]))
        want = np.concatenate([episodes.columns["pose"] for episodes in both])
        np.testing.assert_array_equal(got.columns["pose"], want)
        if camera:
            rows = np.arange(got.ends[-1])
            seen = [e.columns["cam"].read(np.arange(e.ends[-1])) for e in both]
            np.testing.assert_array_equal(got.columns["cam"].read(rows), np.concatenate(seen))


def test_batches_of_a_mixture_hold_each_set_by_its_weight(tmp_path):
    names = [write(tmp_path / f"set{i}", seed=i, lengths=(30, 12 - 4 * i)) for i in range(2)]
    config = config_of(",".join(names), weights="3,1")
    data = dataset.read(config)
    placed = dataset.train_windows(config, data)
    border = data.shares[names[0]][0]
    ids = placed.call_inputs(256, 0, 0, 4).ids
    first = placed.observed[ids][..., 0] < border
    assert ids.shape == (4, 256) and first.sum() == 768


def test_without_weights_every_window_is_drawn_as_often(tmp_path):
    names = [write(tmp_path / f"set{i}", seed=i) for i in range(2)]
    config = config_of(",".join(names))
    placed = dataset.train_windows(config, dataset.read(config))
    ids = placed.call_inputs(len(placed), 0, 0, 1).ids
    np.testing.assert_array_equal(np.sort(ids[0]), np.arange(len(placed)))


@pytest.mark.parametrize("weights", ["1", "1,2,3", "1,-1", "1,nan", "a,b"])
def test_weights_are_one_number_a_set(weights):
    config = tiny_custom.get_config()
    config.data.update(dir="a,b", weights=weights)
    with pytest.raises(UserError, match="must be 2 numbers above 0"):
        sources.directories(config.data)


def test_sets_of_a_mixture_have_the_same_columns(tmp_path):
    one = write(tmp_path / "one")
    rng = np.random.default_rng(0)
    columns = [{"pose": rng.normal(size=(9, 5)), "action": rng.normal(size=(9, 7))}] * 3
    rlds.write(tmp_path / "two", columns, observations=["pose"], description="other")
    with pytest.raises(
        UserError, match=r"two: pose: expected \[7\] per step as in .*one, got \[5\]"
    ):
        dataset.read(config_of(f"{one},{tmp_path / 'two'}"))


def test_a_key_may_be_normalized_apart(tmp_path):
    config = config_of(write(tmp_path / "set", scale=3.0))
    config.normalize.per_key = ConfigDict(dict(pose="identity"))
    data = dataset.read(config)
    fitted = dataset.normalizer(config, data.train)
    np.testing.assert_array_equal(fitted.scale["pose"], 1)
    actions = data.train.columns["action"]
    np.testing.assert_allclose(fitted.scale["action"], np.ptp(actions, 0) / 2, rtol=1e-5)
    config.normalize.per_key = ConfigDict(dict(pose="identty"))
    with pytest.raises(UserError, match="per_key.pose='identty' is unknown"):
        dataset.normalizer(config, data.train)
    config.normalize.per_key = ConfigDict(dict(poze="identity"))
    with pytest.raises(UserError, match="config.normalize.per_key.poze: no such key"):
        dataset.normalizer(config, data.train)


def test_relative_actions_have_the_units_of_all_windows(tmp_path):
    config = config_of(write(tmp_path / "set"))
    config.representation.relative = "pose"
    data = dataset.read(config)
    fitted = dataset.normalizer(config, data.train)
    rows = dataset.window_indices(config, data.train)[0]
    pose, action = data.train.columns["pose"], data.train.columns["action"]
    relative = (action[rows] - pose[rows[:, 1]][:, None]).reshape(-1, 7)
    np.testing.assert_allclose(fitted.scale["action"], np.ptp(relative, 0) / 2, rtol=1e-5)


def test_rotations_are_not_scaled(tmp_path):
    config = config_of(write(tmp_path / "set", scale=0.3))
    config.representation.layouts = ConfigDict(dict(action="3 axis_angle 1"))
    fitted = dataset.normalizer(config, dataset.read(config).train)
    assert fitted.scale["action"].shape == (10,)
    np.testing.assert_array_equal(fitted.scale["action"][3:9], 1)
    np.testing.assert_array_equal(fitted.offset["action"][3:9], 0)


data, cache = tiny.data, tiny.cache  # fixtures


def test_new_keys_of_open_sections_are_given_on_the_command_line():
    config = tiny_custom.get_config()
    argv = ["train", "--config.representation.layouts.action=3 axis_angle", "--config.seed=3"]
    assert flags.put_new_keys(argv, config) == ["train", "--config.seed=3"]
    assert config.representation.layouts.action == "3 axis_angle"
    argv = ["train", "--config.denoiser.new=1"]
    assert flags.put_new_keys(argv, config) == argv


@pytest.mark.slow
def test_a_run_without_a_simulator_trains_and_keeps_the_best_by_held_out_error(
    tmp_path_factory, cache
):
    folder = tmp_path_factory.mktemp("own")
    directory = write(folder / "set", lengths=(20, 25, 30, 22, 24), scale=0.3)
    config = tiny.CONFIG.with_name("tiny_custom.py")
    run = tiny.finish(folder / "run", directory, "val.every=20", config=config, cache=cache)
    assert "config.data.columns is empty: using all of" in run.text()
    loaded = run_lib.load(folder / "run")
    assert loaded.spec.observations == {"pose": 7}
    errors = {e["step"]: e["val_action_error"] for e in tiny.entries(folder / "run")
              if "val_action_error" in e}  # fmt: skip
    scores = {s: checkpoint.read_meta(folder / "run", s)["score"]
              for s in checkpoint.steps(folder / "run")}  # fmt: skip
    assert {20, 40, 60} == set(errors)
    for step, score in scores.items():
        if score is not None:
            np.testing.assert_allclose(score, -errors[step], rtol=1e-6)
    assert max(scores, key=lambda s: scores[s] or -np.inf) == min(errors, key=errors.get)
