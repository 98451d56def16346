"""python -m dpjax.validate: errors of action chunks on what was held out, for each checkpoint."""

import json
import shutil

import numpy as np
import pytest
from support import tiny

from dpjax import validate
from dpjax.core.errors import UserError


def test_a_shipped_policy_is_scored_on_data_that_is_given(policy, data, tmp_path, capsys):
    argv = ["--run", policy, "--data", str(data), "--windows", "8", "--samples", "2"]
    assert validate.main([*argv, "--steps", "2", "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "validation.json").read_text())
    assert [row["step"] for row in result["checkpoints"]] == [7]
    assert result["windows"] == 8 and result["sampler"] == "ddpm-2"
    assert (tmp_path / "validation.png").read_bytes().startswith(b"\x89PNG")
    assert "lowest error: step 7" in capsys.readouterr().out


def test_a_missing_plotting_library_is_named_before_anything_is_read(policy, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"pip install 'dpjax\[report\]'"):
        validate.main(["--run", policy])


@pytest.mark.slow  # it trains
def test_every_checkpoint_is_scored_on_what_was_held_out(run, capsys):
    assert validate.main(["--run", str(run), "--windows", "70", "--samples", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    result = json.loads((run / "validation.json").read_text())
    rows = {row["step"]: row for row in result["checkpoints"]}
    assert set(rows) == {4, 8} and result["lowest"] in rows
    assert lines[-1].startswith(f"lowest error: step {result['lowest']}")
    for row in rows.values():
        assert 0 < row["action_error_best"] <= row["action_error"] < 10 * result["spread"]
    assert (run / "validation.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow  # it trains
def test_it_agrees_with_the_validation_while_training(run):
    last = [entry for entry in tiny.entries(run) if "val_loss" in entry][-1]
    argv = ["--run", str(run), "--windows", "6", "--samples", "40", "--steps", "2"]
    validate.main(argv)
    result = json.loads((run / "validation.json").read_text())
    (row,) = [row for row in result["checkpoints"] if row["step"] == last["step"]]
    np.testing.assert_allclose(row["action_error"], last["val_action_error"], rtol=0.15)


@pytest.mark.slow  # it trains
def test_data_that_may_have_been_trained_on_is_refused(run, tmp_path):
    other = tiny.write(tmp_path / "other", tiny.episodes(seed=5))
    argv = ["--run", str(run), "--windows", "5", "--samples", "1"]
    validate.main([*argv, "--data", str(other), "--out", str(tmp_path)])
    assert json.loads((tmp_path / "validation.json").read_text())["episodes"] == 6
    # The run's own data set has changed since the training.
    changed = tmp_path / "changed"
    shutil.copytree(run, changed)
    config = json.loads((run / "config.json").read_text())
    config["config"]["data"]["dir"] = str(other)
    (changed / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="is not the data that .* was trained on"):
        validate.main(["--run", str(changed)])
