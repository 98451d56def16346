"""What a config leaves open: the columns that are observed, the mode of each, the first level."""

import logging

from ml_collections import ConfigDict
import numpy as np
import pytest
from support import tiny_custom

from dpjax.config import checks, dataset, sources
from dpjax.core.errors import UserError
from dpjax.data import rlds


def config_of(directory, **changes):
    """tiny_custom's config of that directory, resolved."""
    config = tiny_custom.get_config()
    config.data.dir = directory
    config.data.update(changes)
    return sources.resolved(config)


def write_with_own_columns(directory, more=()):
    """A set with a pose, its clock, its row numbers, and its last pose in every step."""
    rng = np.random.default_rng(0)
    episodes = []
    for length in (9, 12, 11, 10):
        pose = rng.normal(size=(length, 3)).astype(np.float32)
        episode = {"pose": pose, "action": pose + 0.1}
        episode["frame_index"] = np.arange(length, dtype=np.float32)[:, None]
        episode["timestamp"] = episode["frame_index"] / 10
        episode["end_pose"] = np.repeat(pose[-1:, ::-1], length, axis=0)
        episode["object"] = np.repeat(rng.normal(size=(1, 2)), length, axis=0).astype(np.float32)
        episode.update({name: pose for name in more})
        episodes.append(episode)
    observed = [name for name in episodes[0] if name != "action"]
    rlds.write(directory, episodes, observations=observed, description="made up")
    return str(directory)


def test_counts_clocks_and_the_future_are_observed_only_if_they_are_named(tmp_path, caplog):
    directory = write_with_own_columns(tmp_path / "set")
    assert set(config_of(directory).data.columns) == {"pose", "object", "action"}
    assert "observation/frame_index (counts or clocks)" in caplog.text
    assert "observation/end_pose (the end of observation/pose in every step)" in caplog.text
    named = ConfigDict(dict(t="observation/timestamp", action="action"))
    assert config_of(directory, columns=named).data.columns.to_dict() == named.to_dict()


def test_a_run_goes_on_with_its_columns_and_says_what_the_data_has_gained(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    begun = config_of(write_with_own_columns(tmp_path / "old"))
    config = tiny_custom.get_config()
    config.data.dir = write_with_own_columns(tmp_path / "new", more=["velocity"])
    again = sources.resolved(config, begun)
    assert again.data.columns.to_dict() == begun.data.columns.to_dict()
    assert "the data also has" in caplog.text and "observation/velocity" in caplog.text


def test_one_mode_is_effective_in_refusals_and_in_training(tmp_path):
    config = config_of(write_with_own_columns(tmp_path / "set"))
    config.normalize.per_key = ConfigDict(dict(action="gaussian"))
    with pytest.raises(UserError, match="normalize.per_key.action='gaussian' with .*clip=1.0"):
        checks.check(config)
    config.normalize.action = "gaussian"
    config.normalize.per_key = ConfigDict(dict(action="limits"))
    checks.check(config)
    data = dataset.read(config)
    fitted = dataset.normalizer(config, data.train)
    there = fitted.normalize({"action": data.train.columns["action"]})["action"]
    np.testing.assert_allclose(there.max(0), 1, atol=1e-5)


def test_one_step_of_linspace_is_refused_with_its_level():
    config = tiny_custom.get_config()
    config.sampler.update(num_steps=1, spacing="linspace")
    with pytest.raises(
        UserError, match="config.sampler.spacing='linspace' with 1 steps .* level 0"
    ):
        checks.check_sampling(config)
