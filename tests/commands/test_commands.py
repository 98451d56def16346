"""The commands on a tiny run: evaluate, sample, demos, and the README's library example."""

import json
from pathlib import Path
import re
import shutil

import numpy as np
import pytest
from support import tiny
from support.tiny import cache, data  # noqa: F401 (fixtures)

from dpjax import demos, evaluate, sample, validate
from dpjax.core.errors import UserError
from dpjax.data import rlds
from dpjax.evaluation import resume
from dpjax.evaluation.rollout import Episode

FEATURES = {"state": "observation/state", "action": "action"}
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory, data, cache):  # noqa: F811
    """A run folder runs/demo, trained for two steps."""
    folder = tmp_path_factory.mktemp("commands") / "runs" / "demo"
    folder.parent.mkdir()
    tiny.finish(folder, data, "train.steps=2", "optim.warmup=1", cache=cache)
    return folder


def test_evaluate_leaves_numbers_a_film_and_a_report(run, capsys):
    argv = ["--run", str(run), "--episodes", "2", "--film", "1", "--sampler", "ddim"]
    assert evaluate.main([*argv, "--steps", "2"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert re.match(r"score \d\.\d\d \[.*\]  success \d\.\d\d \[.*\]  2 episodes .* s  ", last)
    result = json.loads((run / "evaluation-ddim-2-ema-2.json").read_text())
    assert [row["seed"] for row in result["by_seed"]] == [100000, 100001]
    assert 0 <= result["score"] <= 1 and result["broken"] == 0
    assert result["commit"] and result["versions"]["jax"] and result["machine"]
    page = (run / "report.html").read_text()
    assert "data:video/mp4" in page and page.count("data:image/png") >= 4
    assert b"ftyp" in (run / "rollouts.mp4").read_bytes()[:16]


def test_an_evaluation_with_a_warm_start_has_a_name_of_its_own(run, tmp_path):
    argv = ["--run", str(run), "--episodes", "1", "--film", "1", "--steps", "2"]
    argv += ["--out", str(tmp_path), "--warm-start"]
    with pytest.raises(UserError, match=r"--warm-start 1.0 must be in \[0, 1\)"):
        evaluate.main([*argv, "1"])
    evaluate.main([*argv, "0.5"])
    evaluate.main([*argv, "0"])
    warm, cold = "evaluation-ddpm-2-warm-0.5-ema-1.json", "evaluation-ddpm-2-ema-1.json"
    results = [json.loads((tmp_path / name).read_text()) for name in (warm, cold)]
    assert [x["sampler"] for x in results] == ["ddpm-2-warm-0.5", "ddpm-2"]


def test_an_episode_does_not_depend_on_who_shares_its_batch(run, tmp_path):
    results = []
    for first, episodes in ((100000, 2), (100001, 1)):
        argv = ["--run", str(run), "--episodes", str(episodes), "--film", "0", "--steps", "2"]
        argv += ["--first-seed", str(first), "--out", str(tmp_path / str(first))]
        evaluate.main(argv)
        name = f"evaluation-ddpm-2-ema-{episodes}.json"
        results.append(json.loads((tmp_path / str(first) / name).read_text())["by_seed"])
    np.testing.assert_allclose(results[0][1]["score"], results[1][0]["score"], atol=1e-3)


def test_a_killed_evaluation_goes_on(run, tmp_path, monkeypatch, capsys):
    argv = ["--run", str(run), "--episodes", "5", "--film", "1", "--num-envs", "2"]
    argv += ["--steps", "2"]
    evaluate.main([*argv, "--out", str(tmp_path / "whole")])
    name = "evaluation-ddpm-2-ema-5"
    whole = json.loads((tmp_path / "whole" / f"{name}.json").read_text())

    add, out = resume.add, tmp_path / "killed"
    left = out / f"{name}.partial.jsonl"

    def killed_after_the_third(path, episode):
        add(path, episode)
        if len(path.read_text().splitlines()) == 4:
            with path.open("a") as file:
                file.write('{"seed": 1000')  # killed here
            raise SystemExit

    monkeypatch.setattr(resume, "add", killed_after_the_third)
    with pytest.raises(SystemExit):
        evaluate.main([*argv, "--out", str(out)])
    monkeypatch.setattr(resume, "add", add)
    assert left.exists() and not (out / f"{name}.json").exists()

    evaluate.main([*argv, "--out", str(out)])
    assert "3 episodes are done already" in capsys.readouterr().err
    again = json.loads((out / f"{name}.json").read_text())
    for timed in (whole, again):
        del timed["evaluation_seconds"]
    assert again == whole and not left.exists()


def test_an_unfinished_evaluation_of_other_settings_is_not_used(tmp_path, caplog):
    path = tmp_path / "partial.jsonl"
    resume.start(path, {"checkpoint": 1})
    progress = np.array([0.1, 0.4], np.float32)
    resume.add(path, Episode(7, 2, progress, {}, np.zeros((2, 2)), 0.4, False))
    (found,) = resume.start(path, {"checkpoint": 1})
    assert (found.seed, found.score, found.broken) == (7, 0.4, None)
    np.testing.assert_array_equal(found.progress, progress)
    assert resume.start(path, {"checkpoint": 2}) == []
    assert "of other settings" in caplog.text
    path.write_text("no json\n")
    assert resume.start(path, {"checkpoint": 2}) == [] and "is damaged" in caplog.text


def test_demos_are_rlds_that_can_be_trained_on(run, tmp_path, capsys):
    out = tmp_path / "demos"
    argv = ["--from-run", str(run), "--episodes", "2", "--keep", "all", "--max-steps", "20"]
    assert demos.main([*argv, "--num-envs", "2", "--steps", "2", "--out", str(out)]) == 0
    assert "2 episodes of 4 tried, 40 steps" in capsys.readouterr().out
    read = rlds.read(out, features=FEATURES)
    assert read.ends.tolist() == [20, 40] and read.columns["state"].shape == (40, 5)


def test_demos_refuse_seeds_that_are_for_testing(run, tmp_path):
    argv = ["--from-run", str(run), "--episodes", "1", "--keep", "success"]
    with pytest.raises(UserError, match="100000 is not a seed for demonstrations"):
        demos.main([*argv, "--first-seed", "100000", "--out", str(tmp_path / "d")])


def test_demos_say_when_too_few_succeed(run, tmp_path):
    argv = ["--from-run", str(run), "--episodes", "2", "--keep", "success", "--attempts", "2"]
    argv += ["--max-steps", "8", "--num-envs", "2", "--steps", "2"]
    with pytest.raises(UserError, match="0 of 2 episodes were good enough"):
        demos.main([*argv, "--out", str(tmp_path / "d")])
    assert not (tmp_path / "d").exists()


def test_sample_prints_a_chunk_and_times_it(run, tmp_path, capsys):
    path = tmp_path / "obs.json"
    path.write_text(json.dumps({"state": [100, 100, 256, 256, 0.5]}))
    argv = ["--run", str(run), "--observation", str(path), "--repeat", "2", "--steps", "2"]
    assert sample.main(argv) == 0
    out = capsys.readouterr().out
    assert "actions (1, " in out and "median" in out
    assert re.search(r"2 calls, the first \d+\.\d ms; compilation \d+\.\d s before", out)


@pytest.mark.parametrize(
    "content, message",
    [
        ('{"stat": [1]}', "lacks"),
        ("[1, 2", "not a JSON object"),
        ('{"state": [1, 2, 3, 4, null]}', "not a JSON object|finite"),
        ('{"state": [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]}', "expected one step"),
    ],
)
def test_sample_says_what_is_wrong_with_an_observation(run, tmp_path, content, message):
    path = tmp_path / "obs.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        sample.main(["--run", str(run), "--observation", str(path), "--steps", "2"])


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(UserError, match="no config.json there"):
        evaluate.main(["--run", str(tmp_path)])


def test_the_library_example_of_the_readme_runs(run, monkeypatch, capsys):
    code = re.search(r"```python\n(import jax\n.*?)```", (ROOT / "README.md").read_text(), re.S)[1]
    monkeypatch.chdir(run.parents[2])
    exec(compile(code, "README.md", "exec"), {})
    assert "coverage" in capsys.readouterr().out


@pytest.fixture(scope="module")
def two_steps(tmp_path_factory, data, cache):  # noqa: F811
    """A run with two checkpoints."""
    folder = tmp_path_factory.mktemp("validate") / "run"
    tiny.finish(folder, data, "train.steps=8", "save.every=4", "log.every=4", cache=cache)
    return folder


def test_validate_scores_every_checkpoint_on_what_was_held_out(two_steps, capsys):
    assert validate.main(["--run", str(two_steps), "--windows", "70", "--samples", "2"]) == 0
    said = capsys.readouterr().out.splitlines()
    result = json.loads((two_steps / "validation.json").read_text())
    rows = {row["step"]: row for row in result["checkpoints"]}
    assert set(rows) == {4, 8} and result["lowest"] in rows
    assert said[-1].startswith(f"lowest error: step {result['lowest']}")
    for row in rows.values():
        assert 0 < row["action_error_best"] <= row["action_error"] < 10 * result["spread"]
    assert (two_steps / "validation.png").read_bytes().startswith(b"\x89PNG")


def test_validate_agrees_with_training(two_steps, capsys):
    last = [e for e in tiny.entries(two_steps) if "val_loss" in e][-1]
    argv = ["--run", str(two_steps), "--windows", "6", "--samples", "40", "--steps", "2"]
    validate.main(argv)
    result = json.loads((two_steps / "validation.json").read_text())
    (row,) = [row for row in result["checkpoints"] if row["step"] == last["step"]]
    np.testing.assert_allclose(row["action_error"], last["val_action_error"], rtol=0.15)


def test_validate_refuses_data_that_may_have_been_trained_on(two_steps, data, tmp_path):  # noqa: F811
    moved = tiny.write(tmp_path / "other", tiny.episodes(seed=5))
    argv = ["--run", str(two_steps), "--windows", "5", "--samples", "1"]
    validate.main([*argv, "--data", str(moved), "--out", str(tmp_path)])
    assert json.loads((tmp_path / "validation.json").read_text())["episodes"] == 6
    config = json.loads((two_steps / "config.json").read_text())
    changed = tmp_path / "changed"
    shutil.copytree(two_steps, changed)
    config["config"]["data"]["dir"] = str(moved)
    (changed / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="is not the data that .* was trained on"):
        validate.main(["--run", str(changed)])
