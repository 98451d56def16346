"""robomimic's files: the order of demos, filter keys, metadata and absolute actions."""

import h5py
import numpy as np
import pytest
from support import foreign_sets
from support.converting import convert_to, refusal
import tensorflow_datasets as tfds

from dpjax.core import rotations
from dpjax.data.rlds import reader

KEYS = ("state", "action", "camera", "count")


def test_demos_are_in_numeric_order_with_their_rate_and_task(tmp_path):
    episodes = foreign_sets.make_episodes(lengths=(3, 4, 5, 6))
    names = ["demo_10", "demo_9", "demo_0", "demo_2"]
    source = foreign_sets.write_robomimic(tmp_path / "s.hdf5", episodes, names)
    out = convert_to(tmp_path, "robomimic", source)
    assert [len(e["action"]) for e in foreign_sets.converted(out, KEYS)] == [5, 6, 4, 3]
    assert reader.metadata(out)["fps"] == 20
    data = tfds.builder_from_directory(str(out / "1.0.0")).as_data_source("train")
    assert data[3]["episode_metadata"]["demo"] == b"demo_10"
    assert data[3]["episode_metadata"]["task"] == b"Lift"


def test_a_filter_key_chooses_demos(tmp_path):
    source = foreign_sets.write_robomimic(tmp_path / "s.hdf5")
    out = convert_to(tmp_path, "robomimic", source, "--filter", "valid")
    assert [len(e["action"]) for e in foreign_sets.converted(out, KEYS)] == [7]
    line = refusal(tmp_path / "x", "robomimic", source, "--filter", "vaild")
    assert line.startswith(f"--filter vaild is not in mask/ of {source}; did you mean 'valid'")


@pytest.mark.parametrize("arms, separate", [(1, True), (1, False), (2, True)])
def test_absolute_actions_are_poses_with_6d_rotations(tmp_path, arms, separate):
    """The rotations can be recovered from the six numbers; positions and grippers stay.

    separate: the poses are in actions_abs, not in actions.
    """
    episodes = foreign_sets.make_episodes()
    rng = np.random.default_rng(1)
    sizes = [(len(episode["action"]), 7 * arms) for episode in episodes]
    poses = [rng.uniform(-1, 1, size).astype(np.float32) for size in sizes]
    source = foreign_sets.write_robomimic(tmp_path / "s.hdf5", episodes)
    with h5py.File(source, "a") as file:
        for i, pose in enumerate(poses):
            if separate:
                file[f"data/demo_{i}/actions_abs"] = pose
            else:
                file[f"data/demo_{i}/actions"][...] = pose
    out = convert_to(tmp_path, "robomimic", source, "--absolute")
    for episode, pose in zip(foreign_sets.converted(out, ("action", "state")), poses):
        got = episode["action"].reshape(-1, arms, 10)
        expected = pose.reshape(-1, arms, 7)
        np.testing.assert_array_equal(got[..., :3], expected[..., :3])
        np.testing.assert_array_equal(got[..., 9], expected[..., 6])
        back = rotations.convert(got[..., 3:9], "rotation_6d", "axis_angle")
        np.testing.assert_allclose(back, expected[..., 3:6], atol=1e-6)


def test_without_absolute_the_deltas_are_converted(tmp_path, capsys):
    source = foreign_sets.write_robomimic(tmp_path / "s.hdf5")
    with h5py.File(source, "a") as file:
        for i, episode in enumerate(foreign_sets.make_episodes()):
            file[f"data/demo_{i}/actions_abs"] = episode["action"] + 1
    episodes = foreign_sets.converted(convert_to(tmp_path, "robomimic", source), ("action",))
    foreign_sets.assert_same(episodes, foreign_sets.make_episodes(), ("action",))
    printed = capsys.readouterr().out
    assert "left out: actions_abs (not an observation; --keys selects it)" in printed


def _spoil(tmp_path, change):
    """A robomimic file of three demos that `change(file)` has edited."""
    source = foreign_sets.write_robomimic(tmp_path / "s.hdf5")
    with h5py.File(source, "a") as file:
        change(file)
    return source


def _odd_observations(file):
    """A group in all demos, text in all, a key of one demo, an array of another length, links."""
    for i, n in enumerate(foreign_sets.LENGTHS):
        obs = file[f"data/demo_{i}/obs"]
        obs["info/pose"] = np.zeros((n, 4, 4), np.float32)
        obs.create_dataset("words", data=["a"] * n, dtype=h5py.string_dtype())
        obs["label"] = "pick it up"
        obs["longer"] = np.zeros((n + 1, 2), np.float32)
        obs["actions"] = np.zeros((n, 2), np.float32)
    file["data/demo_1/obs/debug"] = np.zeros((foreign_sets.LENGTHS[1], 1), np.float32)


def test_odd_observations_beside_good_ones_are_left_out_with_a_line(tmp_path, capsys):
    source = _spoil(tmp_path, _odd_observations)
    out = convert_to(tmp_path, "robomimic", source)
    expected = [foreign_sets.as_written(e) for e in foreign_sets.make_episodes()]
    foreign_sets.assert_same(foreign_sets.converted(out, KEYS), expected, KEYS)
    lines = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    reasons = {
        "info": "got a group of pose",
        "words": "expected numbers, got objects",
        "label": "got",
        "longer": "expected 5 steps as of actions, got 6 of obs/longer",
        "obs/actions": "an observation can't have this name",
        "debug": "demo_0/obs/debug: missing there",
    }
    for key, reason in reasons.items():
        assert [line for line in lines if f"left out: {key} (" in line and reason in line], key


def test_a_link_is_refused_unless_other_keys_are_named(tmp_path):
    def change(file):
        file["data/demo_1/obs/again"] = h5py.SoftLink("/data/demo_1/obs/state")
        file["data/demo_1/obs/gone"] = h5py.ExternalLink("other.hdf5", "/x")

    source = _spoil(tmp_path, change)
    line = refusal(tmp_path / "x", "robomimic", source)
    assert "obs/again: expected the data, got a link (SoftLink)" in line
    out = convert_to(tmp_path, "robomimic", source, "--keys", "state")
    assert len(foreign_sets.converted(out, ("state", "action"))) == 3


def test_what_is_beside_observations_and_actions_is_listed_once(tmp_path, caplog):
    def change(file):
        file["extra"] = np.zeros(3)
        file["data/notes"] = np.zeros(3)
        file["data"].attrs["camera_matrix"] = np.eye(3)
        for i, n in enumerate(foreign_sets.LENGTHS):
            file[f"data/demo_{i}/states"] = np.zeros((n, 9))
            file[f"data/demo_{i}"].attrs["model_file"] = "<xml/>"

    convert_to(tmp_path, "robomimic", _spoil(tmp_path, change))
    lines = [line.message for line in caplog.records if "left out" in line.message]
    (beside,) = [line for line in lines if "neither observations" in line]
    for name in ("extra", "attribute data.camera_matrix", "states", "rewards", "next_obs"):
        assert f"{name}," in beside or f"{name}:" in beside
    assert "attribute model_file" in beside
    assert any("data/notes: an array, not a demo" in line for line in lines)
    assert any("mask/train, mask/valid: all demos are read" in line for line in lines)


def test_float32_and_float64_mix(tmp_path, caplog):
    def change(file):
        state = file["data/demo_1/obs/state"][...].astype(np.float64)
        del file["data/demo_1/obs/state"]
        file["data/demo_1/obs/state"] = state

    out = convert_to(tmp_path, "robomimic", _spoil(tmp_path, change))
    foreign_sets.assert_same(
        foreign_sets.converted(out, ("state",)), foreign_sets.make_episodes(), ("state",)
    )
    assert "state: of types float32 and float64 in different episodes" in caplog.text


def test_bad_demos_are_skipped_by_name(tmp_path, caplog):
    """A demo without actions, one that claims other steps; the third is converted."""

    def change(file):
        del file["data/demo_0/actions"]
        file["data/demo_2"].attrs["num_samples"] = 99

    source = _spoil(tmp_path, change)
    out = convert_to(tmp_path, "robomimic", source, "--on-bad", "skip")
    (episode,) = foreign_sets.converted(out, ("state",))
    np.testing.assert_array_equal(episode["state"], foreign_sets.make_episodes()[1]["state"])
