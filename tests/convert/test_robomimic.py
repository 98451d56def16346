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
