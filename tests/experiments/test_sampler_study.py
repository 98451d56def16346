"""experiments/samplers: its rows, and which of them it recommends."""

import json
from pathlib import Path

import numpy as np
import pytest
from support import tiny_config

from dpjax.core.errors import UserError
from dpjax.core.spec import Spec
from dpjax.runs.config_file import write_config
from experiments.samplers import measure, rows, table
from experiments.samplers.__main__ import paired

MAIN = Path("main")


def trained(folder, **changes):
    """A run folder of which there is the config only."""
    config = tiny_config.get_config()
    config.schedule.name = "flow"
    config.update(changes)
    folder.mkdir()
    write_config(folder, config, Spec({"state": 3}, 2, ""))
    return folder


def test_rows_of_all_runs_have_names_of_their_own(tmp_path):
    flow, mean = trained(tmp_path / "a"), trained(tmp_path / "b", method="meanflow")
    every = rows.of_main(MAIN) + rows.of_other(flow) + rows.of_other(mean)
    rows.check_names(every)
    names = [row.name for row in every]
    assert len(set(names)) == len(names) and names[0] == table.REFERENCE
    assert {"ddim-10-warm-0.5", "flow-euler-4", "flow-heun-10", "meanflow-1"} <= set(names)


def test_two_runs_of_a_method_are_refused(tmp_path):
    runs = trained(tmp_path / "a"), trained(tmp_path / "b")
    with pytest.raises(UserError, match="both trained by flow: expected one run of a method"):
        rows.check_names([row for run in runs for row in rows.of_other(run)])


def test_a_run_of_the_main_method_is_no_other(tmp_path):
    run = trained(tmp_path / "a", schedule=dict(name="cosine", num_levels=20))
    with pytest.raises(UserError, match="schedule.name='cosine'.*choose one of flow, meanflow"):
        rows.of_other(run)


def test_the_fastest_within_the_loss_is_recommended():
    row = lambda less, ms: {"less": less, "ms": ms}
    found = {"ddpm-100": row(0, 60), "a": row(0.02, 5), "b": row(-0.01, 6), "c": row(0.03, 1)}
    assert table.recommended(found) == "a"


def test_scores_are_compared_seed_by_seed():
    episodes = lambda *scores: {"by_seed": [{"score": x, "broken": None} for x in scores]}
    got = paired(episodes(0.5, 0.7, 0.0), episodes(0.6, 0.8, 1.0), 2)
    np.testing.assert_allclose([got["less"], *got["gain_interval"]], [0.1, -0.1, -0.1])
    assert table.lost(got) == "0.100 [0.100, 0.100]"


def test_a_look_is_of_an_episodes_second_plan():
    class Line:  # a task: whatever is sent somewhere is there
        observe = staticmethod(lambda raw: raw)
        reset = staticmethod(lambda env, seed: {"x": np.array([float(seed)])})
        step = staticmethod(lambda env, action: ({"x": action}, 0.0, False))

    class Run:  # plans 0 … 7 steps ahead
        config = tiny_config.get_config()  # To 2, Tp 8, Ta 4

        @staticmethod
        def plan(key, obs):
            return obs["x"][:, -1:] + np.arange(8.0)[None, :, None]

    obs, previous = measure.look(Line, None, Run, seed=10)
    np.testing.assert_array_equal(obs["x"].ravel(), [13, 14])  # 11, 12, 13, 14 were executed
    want = [14, 15, 16, 17, *[np.nan] * 4]
    np.testing.assert_array_equal(previous.ravel(), want)


def test_what_it_left_is_what_its_page_promises():
    left = json.loads((Path(table.__file__).parent / "results.json").read_text())
    for key in ("ddpm_100", "few_step"):
        assert {"score", "success", "ms", "episodes", "speedup"} <= set(left[key])
