"""experiments/samplers: its rows, and which of them it recommends."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support import tiny_config

from dpjax.core.errors import UserError
from dpjax.core.spec import Spec
from dpjax.runs.config_file import write_config
from experiments.samplers import measure, rows, table
from experiments.samplers.__main__ import paired

MAIN = Path("main")


def run_folder(folder, **changes):
    """A run folder that holds nothing but the config."""
    config = tiny_config.get_config()
    config.schedule.name = "flow"
    config.update(changes)
    folder.mkdir()
    write_config(folder, config, Spec({"state": 3}, 2, ""))
    return folder


def test_rows_of_all_runs_have_different_names(tmp_path):
    flow = run_folder(tmp_path / "a")
    meanflow = run_folder(tmp_path / "b", method="meanflow")
    every = rows.of_main(MAIN) + rows.of_other(flow) + rows.of_other(meanflow)
    rows.check_names(every)
    names = [row.name for row in every]
    assert len(set(names)) == len(names) and names[0] == table.REFERENCE
    assert {"ddim-10-warm-0.5", "flow-euler-4", "flow-heun-10", "meanflow-1"} <= set(names)


def test_two_runs_of_a_method_are_refused(tmp_path):
    runs = run_folder(tmp_path / "a"), run_folder(tmp_path / "b")
    with pytest.raises(UserError, match="both trained by flow: expected one run per method"):
        rows.check_names([row for run in runs for row in rows.of_other(run)])


def test_a_run_of_the_main_method_is_not_another_one(tmp_path):
    run = run_folder(tmp_path / "a", schedule=dict(name="cosine", num_levels=20))
    with pytest.raises(UserError, match="schedule.name='cosine'.*choose one of flow, meanflow"):
        rows.of_other(run)


def test_the_fastest_within_the_loss_is_recommended():
    row = lambda less, ms: {"less": less, "ms": ms}
    numbers = {"ddpm-100": row(0, 60), "a": row(0.02, 5), "b": row(-0.01, 6), "c": row(0.03, 1)}
    assert table.recommended(numbers) == "a"


def test_scores_are_compared_seed_by_seed():
    episodes = lambda *scores: {"by_seed": [{"score": x, "broken": None} for x in scores]}
    pair = paired(episodes(0.5, 0.7, 0.0), episodes(0.6, 0.8, 1.0), 2)
    np.testing.assert_allclose([pair["less"], *pair["gain_interval"]], [0.1, -0.1, -0.1])
    assert table.score_lost(pair) == "0.100 [0.100, 0.100]"


def test_a_situation_is_the_input_of_the_second_chunk():
    # A task on a line: whatever is sent somewhere is there after the step.
    simulator = SimpleNamespace(
        reset=lambda env, seed: {"x": np.array([float(seed)])},
        step=lambda env, action: ({"x": action}, 0.0, False),
    )
    line = SimpleNamespace(observe=lambda raw: raw, simulator=simulator)
    # A policy whose chunk is 0 … 7 ahead of the newest observation; To 2, Tp 8, Ta 4.
    run = SimpleNamespace(
        config=tiny_config.get_config(),
        sample_actions=lambda key, obs: obs["x"][:, -1:] + np.arange(8.0)[None, :, None],
    )
    obs, previous = measure.situation(line, None, run, seed=10)
    np.testing.assert_array_equal(obs["x"].ravel(), [13, 14])  # 11, 12, 13, 14 were executed
    expected = [14, 15, 16, 17, *[np.nan] * 4]
    np.testing.assert_array_equal(previous.ravel(), expected)


def test_results_hold_what_the_readme_promises():
    results = json.loads((Path(table.__file__).parent / "results.json").read_text())
    for key in ("ddpm_100", "few_step"):
        assert {"score", "success", "ms", "episodes", "speedup"} <= set(results[key])
