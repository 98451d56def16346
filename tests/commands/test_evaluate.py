"""python -m dpjax.evaluate: its numbers, its film, its report, and going on after a kill."""

import json
import re

import numpy as np
import pytest

from dpjax import evaluate
from dpjax.core.errors import UserError
from dpjax.evaluation import resume

NAME = "evaluation-ddpm-2-ema"


def test_it_leaves_numbers_a_film_and_a_report(
    policy, short_episodes, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert evaluate.main(["--run", policy, "--steps", "2", "--episodes", "2", "--film", "1"]) == 0
    captured = capsys.readouterr()
    last = captured.out.splitlines()[-1]
    line = r"score \d\.\d\d \[.*\]  success \d\.\d\d \[.*\]  2 episodes .*\d s  report.html"
    assert re.fullmatch(line, last)
    assert "tiny comes with dpjax: writing into the current folder" in captured.err
    result = json.loads((tmp_path / f"{NAME}-2.json").read_text())
    assert [row["seed"] for row in result["by_seed"]] == [100000, 100001]
    assert 0 <= result["score"] <= 1 and result["broken"] == 0
    assert result["commit"] and result["versions"]["dpjax"] and result["machine"]
    page = (tmp_path / "report.html").read_text()
    assert "data:video/mp4" in page and page.count("data:image/png") >= 3
    assert b"ftyp" in (tmp_path / "rollouts.mp4").read_bytes()[:16]
    assert not list(tmp_path.glob("*.partial.jsonl"))


def test_without_the_libraries_of_the_report_there_are_numbers(
    policy, short_episodes, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert (
        evaluate.main(["--run", policy, "--steps", "2", "--episodes", "1", "--out", str(tmp_path)])
        == 0
    )
    captured = capsys.readouterr()
    assert "no report and no film: matplotlib is not installed" in captured.err
    assert "pip install 'dpjax[report]'" in captured.err
    assert captured.out.splitlines()[-1].endswith(f"{NAME}-1.json")
    assert [path.name for path in tmp_path.iterdir()] == [f"{NAME}-1.json"]


def test_an_evaluation_with_a_warm_start_has_a_name_of_its_own(policy, short_episodes, tmp_path):
    argv = [
        "--run",
        policy,
        "--steps",
        "2",
        "--episodes",
        "1",
        "--film",
        "0",
        "--out",
        str(tmp_path),
        "--warm-start",
    ]
    with pytest.raises(UserError, match=r"--warm-start 1.0 must be in \[0, 1\)"):
        evaluate.main([*argv, "1"])
    evaluate.main([*argv, "0.5"])
    evaluate.main([*argv, "0"])
    names = ("evaluation-ddpm-2-warm-0.5-ema-1.json", f"{NAME}-1.json")
    results = [json.loads((tmp_path / name).read_text()) for name in names]
    assert [result["sampler"] for result in results] == ["ddpm-2-warm-0.5", "ddpm-2"]


def test_an_episode_does_not_depend_on_its_batch(policy, short_episodes, tmp_path):
    results = []
    for first, episodes in ((100000, 2), (100001, 1)):
        argv = ["--run", policy, "--steps", "2", "--episodes", str(episodes), "--film", "0"]
        evaluate.main([*argv, "--first-seed", str(first), "--out", str(tmp_path)])
        result = json.loads((tmp_path / f"{NAME}-{episodes}.json").read_text())
        results.append(result["by_seed"])
    np.testing.assert_allclose(results[0][1]["progress"], results[1][0]["progress"], atol=1e-3)


@pytest.mark.slow
def test_a_killed_evaluation_goes_on(policy, short_episodes, tmp_path, monkeypatch, capsys):
    argv = [
        "--run",
        policy,
        "--steps",
        "2",
        "--episodes",
        "5",
        "--film",
        "1",
        "--num-envs",
        "2",
        "--out",
    ]
    evaluate.main([*argv, str(tmp_path / "complete")])
    complete = json.loads((tmp_path / "complete" / f"{NAME}-5.json").read_text())

    add = resume.add
    out = tmp_path / "killed"
    unfinished = out / f"{NAME}-5.partial.jsonl"

    def killed_after_the_third(path, episode):
        add(path, episode)
        if len(path.read_text().splitlines()) == 4:  # the settings and three episodes
            with path.open("a") as file:
                file.write('{"seed": 1000')  # killed in the middle of a line
            raise SystemExit

    monkeypatch.setattr(resume, "add", killed_after_the_third)
    with pytest.raises(SystemExit):
        evaluate.main([*argv, str(out)])
    monkeypatch.setattr(resume, "add", add)
    assert unfinished.exists() and not (out / f"{NAME}-5.json").exists()

    evaluate.main([*argv, str(out)])
    assert "3 episodes are done already" in capsys.readouterr().err
    again = json.loads((out / f"{NAME}-5.json").read_text())
    for result in (complete, again):
        del result["evaluation_seconds"]
    assert again == complete and not unfinished.exists()


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(UserError, match="no config.json there"):
        evaluate.main(["--run", str(tmp_path)])


@pytest.mark.slow  # it trains
def test_a_run_folder_gets_the_files_and_the_curves(run, short_episodes):
    argv = ["--run", str(run), "--episodes", "1", "--film", "1", "--steps", "2"]
    assert evaluate.main([*argv, "--sampler", "ddim"]) == 0
    assert (run / "evaluation-ddim-2-ema-1.json").exists()
    page = (run / "report.html").read_text()
    # The scores, the losses and the action chunks; no coverage, which is 0 after so few steps.
    assert "Loss over steps" in page and page.count("data:image/png") == 3
