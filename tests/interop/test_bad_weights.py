"""Hostile and damaged weights: one line says what is wrong; nothing is run or written."""

import json
import os
from pathlib import Path
import re
import subprocess
import sys

from bad_inputs import fuzz, weights
import pytest

from dpjax import import_weights

TESTS = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """{case: what came of it} in one process for all, with a GiB of memory to spare."""
    base = tmp_path_factory.mktemp("bad")
    paths = {}
    for case in weights.CASES:
        folder = base / case.__name__
        folder.mkdir()
        paths[str(case(folder))] = case.__name__
    command = [sys.executable, str(TESTS / "bad_inputs" / "attempt.py"), *paths]
    env = {**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=base, env=env, capture_output=True, text=True, timeout=600)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    results = [json.loads(line.removeprefix("RESULT ")) for line in lines]
    assert len(results) == len(paths), done.stderr[-2000:]
    return {paths[result["path"]]: result for result in results}, base


@pytest.mark.parametrize("case", weights.CASES, ids=lambda case: case.__name__)
def test_each_ends_in_one_line_that_names_what_is_wrong(case, results):
    by_case, base = results
    result = by_case[case.__name__]
    message = result["message"]
    assert result["error"] == "UserError", result
    assert re.search(weights.CASES[case], message), message
    assert "\n" not in message and len(message) < 1000
    assert case.__name__ in message, "the file is named"
    assert result["written"] == [] and result["seconds"] < 20
    assert not list(base.rglob(weights.CANARY)) and not list(base.rglob("*escaped*"))


def test_what_lies_beside_a_good_policy_is_named_and_not_run(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    beside = {"x": weights.Call("os.system", (weights.TOUCH,))}
    source = weights.good(tmp_path, pickles=beside)
    assert import_weights.main([str(source), "--run", "run"]) == 0
    assert re.search(r"read as data and not called: .*os\.system", caplog.text)
    assert not (tmp_path / weights.CANARY).exists()


def test_files_that_were_changed_anywhere_are_read_or_refused_in_one_line(tmp_path):
    counts, seconds = fuzz.fuzz(500, tmp_path)
    assert set(counts) <= {"read", "refused"} and counts["refused"] > 400
    assert seconds < 2
