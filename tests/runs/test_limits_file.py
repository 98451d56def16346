"""limits.json of a run: written at the start of a training, read by the robot loop."""

import numpy as np
import pytest

import dpjax
from dpjax.core.errors import UserError
from dpjax.data import episodes
from dpjax.runs import limits_file, on_robot


def made():
    actions = np.stack([np.arange(20.0), -2 * np.arange(20.0)], 1).astype(np.float32)
    return episodes.stack([{"state": actions[:, :1], "action": actions}], "made")


def test_what_is_written_is_read(tmp_path):
    limits_file.write(tmp_path, made())
    limits = limits_file.read(tmp_path, config=None)
    np.testing.assert_array_equal(limits.low, [0, -38])
    np.testing.assert_array_equal(limits.step, [1, 2])


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "limits.json").write_text('{"low": [1]}')
    with pytest.raises(UserError, match=r"limits\.json: can't be read"):
        limits_file.read(tmp_path, config=None)


def test_without_a_file_and_without_the_data(tmp_path):
    config = dpjax.load("pusht_demo").config.copy_and_resolve_references()
    with config.unlocked():
        config.data.dir = str(tmp_path / "gone")
    with pytest.raises(UserError, match=r"limits\.json is missing.*gone"):
        limits_file.read(tmp_path, config)


def test_the_shipped_policy_has_limits_and_keeps_them():
    run = dpjax.load("pusht_demo")
    acting = on_robot.acting("pusht_demo", run, promise=0.01)
    assert list(acting.columns) == ["state"] and acting.action_dim == 2
    # The targets of Push-T lie in a square of 512 px.
    assert (acting.limits.low >= 0).all() and (acting.limits.high <= 512).all()
    assert (acting.limits.step > 5).all() and (acting.limits.step < 100).all()
