"""python -m dpjax.demos with a policy: what is kept, and what is counted."""

from types import SimpleNamespace

import numpy as np
import pytest

from dpjax import demos, tasks
from dpjax.core.errors import UserError
from dpjax.data import rlds
from dpjax.runs import demonstrators
from dpjax.tasks import Simulator, Task

FEATURES = {"state": "observation/state", "action": "action"}


def test_demos_are_rlds_that_can_be_trained_on(policy, tmp_path, capsys):
    out = tmp_path / "demos"
    argv = [
        "--from-run",
        policy,
        "--steps",
        "2",
        "--episodes",
        "2",
        "--keep",
        "all",
        "--max-steps",
        "20",
        "--out",
        str(out),
    ]
    assert demos.main(argv) == 0
    assert "2 episodes of 2 tried, 40 steps" in capsys.readouterr().out
    read = rlds.read(out, features=FEATURES)
    assert read.ends.tolist() == [20, 40] and read.columns["state"].shape == (40, 5)


def test_seeds_that_are_for_testing_are_refused(policy, tmp_path):
    argv = [
        "--from-run",
        policy,
        "--steps",
        "2",
        "--episodes",
        "1",
        "--keep",
        "success",
        "--first-seed",
        "100000",
    ]
    with pytest.raises(UserError, match="100000 is not a seed for demonstrations"):
        demos.main([*argv, "--out", str(tmp_path / "d")])


def test_too_few_successes_are_an_error(policy, tmp_path):
    argv = [
        "--from-run",
        policy,
        "--steps",
        "2",
        "--episodes",
        "2",
        "--keep",
        "success",
        "--attempts",
        "2",
        "--max-steps",
        "8",
    ]
    with pytest.raises(UserError, match="0 of 2 episodes were good enough"):
        demos.main([*argv, "--out", str(tmp_path / "d")])
    assert not (tmp_path / "d").exists()


def every_third_fails(num_envs):
    """A demonstrator whose episodes last one step and fail for every third seed."""
    simulator = Simulator(
        make=lambda: SimpleNamespace(),
        reset=lambda env, seed: {"x": np.full(1, seed, np.float32)},
        step=lambda env, action: ({"x": action}, float(action[0] % 3 != 0), True),
        render=None,
        draw_actions=None,
        score=float,
        success=lambda progress: progress > 0,
        max_steps=5,
        action_low=-np.inf,
        action_high=np.inf,
    )
    batch_sizes = []

    def sample_actions(keys, obs, previous=None):
        batch_sizes.append(len(keys))
        return np.repeat(np.asarray(obs["x"]), 1, axis=1)  # [B, To = 1, 1]

    demonstrator = demonstrators.of_expert(
        Task("thirds", observe=dict, simulator=simulator), lambda: None, num_envs
    )
    padded = demonstrators.padded(sample_actions, num_envs)
    return demonstrator._replace(sample_actions=padded), batch_sizes


@pytest.mark.parametrize("num_envs", [1, 3, 8])
def test_every_tried_episode_is_kept_or_counted(num_envs):
    demonstrator, batch_sizes = every_third_fails(num_envs)
    args = SimpleNamespace(
        episodes=8, keep="success", max_steps=None, first_seed=None, attempts=0, delay=0
    )
    kept, counts = demos.collect(demonstrator, args)
    # 300000 is a multiple of three.
    assert [e.seed - 300000 for e in kept] == [1, 2, 4, 5, 7, 8, 10, 11]
    assert counts.tried == len(kept) + counts.failed + counts.broken + counts.surplus
    assert counts.tried <= 12 + num_envs
    assert set(batch_sizes) == {num_envs}  # one compiled program for rounds of all sizes


def test_a_round_tries_about_as_many_as_are_missing():
    assert demos.round_size(missing=4, kept=0, tried=0, num_envs=20) == 4
    assert demos.round_size(missing=2, kept=8, tried=17, num_envs=20) == 4  # half of them good
    assert demos.round_size(missing=4, kept=0, tried=80, num_envs=20) == 20
    assert demos.round_size(missing=60, kept=0, tried=80, num_envs=20) == 60
    assert str(demos.Counts(9, 3, 1, 2)) == "3 failed, 1 broken, 2 good but not needed"


def test_a_task_without_a_simulator_is_refused(tmp_path):
    argv = ["--task", "custom", "--episodes", "1", "--keep", "all", "--out", str(tmp_path / "d")]
    with pytest.raises(UserError, match="task='custom' has no simulator"):
        demos.main(argv)
    assert tasks.get("custom").simulator is None
