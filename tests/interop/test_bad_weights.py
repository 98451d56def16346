"""Hostile and broken weights: a line that says what is wrong; nothing runs or is written."""

import json
import os
from pathlib import Path
import re
import subprocess
import sys

from bad_inputs import fuzz, weights
import pytest

from dpjax import import_weights

HERE = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """{case: what a process with a GiB to spare says of it}; one process for all."""
    base = tmp_path_factory.mktemp("bad")
    paths = {}
    for case in weights.CASES:
        folder = base / case.__name__
        folder.mkdir()
        paths[str(case(folder))] = case.__name__
    command = [sys.executable, str(HERE / "bad_inputs" / "attempt.py"), *paths]
    env = {**os.environ, "PYTHONPATH": f"{HERE.parent}:{HERE}", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=base, env=env, capture_output=True, text=True, timeout=600)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    found = [json.loads(line.removeprefix("RESULT ")) for line in lines]
    assert len(found) == len(paths), done.stderr[-2000:]
    return {paths[one["path"]]: one for one in found}, base


@pytest.mark.parametrize("case", weights.CASES, ids=lambda case: case.__name__)
def test_each_ends_in_one_line_that_names_what_is_wrong(case, results):
    found, base = results
    one = found[case.__name__]
    assert one["error"] == "UserError", one
    assert re.search(weights.CASES[case], one["message"]), one["message"]
    assert "\n" not in one["message"] and len(one["message"]) < 1000
    assert case.__name__ in one["message"], "the file is named"
    assert one["written"] == [] and one["seconds"] < 20
    assert not list(base.rglob(weights.CANARY)) and not list(base.rglob("*escaped*"))


def test_what_lies_beside_a_good_policy_is_named_and_not_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    beside = {"x": weights.Call("os.system", (weights.TOUCH,))}
    source = weights.good(tmp_path, pickles=beside)
    assert import_weights.main([str(source), "--run", "run"]) == 0
    assert re.search(r"read as data and not called: .*os\.system", capsys.readouterr().err)
    assert not (tmp_path / weights.CANARY).exists()


def test_files_that_were_changed_anywhere_are_read_or_refused_in_one_line(tmp_path):
    counts, seconds = fuzz.fuzz(500, tmp_path)
    assert set(counts) <= {"read", "refused"} and counts["refused"] > 400
    assert seconds < 2
