"""A run that is stopped or killed, at any moment, ends bit for bit as one that was not.

The windows of tiny_config.py's data make an epoch of six steps and a half, so that the
epochs' boundaries lie inside calls and on either side of the checkpoints.
"""

import random
import re
import signal
import time

import pytest
from support import tiny

from dpjax.training import checkpoint

pytestmark = pytest.mark.slow
data = tiny.data  # fixtures
cache = tiny.cache

STEPS = 60  # of tiny_config.py
QUIET = "val.every=0"


@pytest.fixture(scope="module")
def uninterrupted(data, tmp_path_factory):
    """All that an uninterrupted run saves; compiled afresh, as the others are not."""
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    tiny.finish(workdir, data, QUIET)
    items, step = tiny.saved(workdir)
    assert step == STEPS
    return items


def assert_ends_as(uninterrupted, workdir):
    items, step = tiny.saved(workdir)
    assert step == STEPS and tiny.differences(items, uninterrupted) == []
    logged = [entry["step"] for entry in tiny.entries(workdir) if "loss" in entry]
    assert logged == sorted(set(logged)) and set(range(2, STEPS + 1, 2)) <= set(logged)


def test_killed_at_every_named_point(uninterrupted, data, cache, tmp_path):
    workdir = tmp_path / "run"
    for point in ("before_save:2", "after_arrays:1", "before_commit:2", "during_delete:2"):
        killed = tiny.start(workdir, data, QUIET, cache=cache, env={"DPJAX_KILL_AT": point}).wait()
        assert killed.code == -signal.SIGKILL, f"{point}: {killed.text()[-2000:]}"
    tiny.finish(workdir, data, QUIET, cache=cache)
    assert_ends_as(uninterrupted, workdir)


def test_killed_at_random(uninterrupted, data, cache, tmp_path):
    workdir = tmp_path / "run"
    rng = random.Random(0)
    kills = 0
    for _ in range(4):
        target = tiny.logged(workdir) + rng.randint(4, 14)
        run = tiny.start(workdir, data, QUIET, cache=cache)
        run.wait_until(lambda: tiny.logged(workdir) >= target)  # noqa: B023
        time.sleep(rng.uniform(0, 0.06))
        run.end()
        assert run.code in (0, -signal.SIGKILL), run.text()[-2000:]
        kills += run.code != 0
    assert kills >= 2
    tiny.finish(workdir, data, QUIET, cache=cache)
    assert_ends_as(uninterrupted, workdir)


def test_sigterm_saves_and_exits(uninterrupted, data, cache, tmp_path):
    workdir = tmp_path / "run"
    early = tiny.start(workdir, data, QUIET, cache=cache)
    early.wait_until(lambda: "episodes to train on" in early.text())
    early.signal(signal.SIGTERM)
    assert early.wait().code == -signal.SIGTERM  # nothing to save: gone at once
    assert checkpoint.steps(workdir) == []

    for number in (signal.SIGTERM, signal.SIGINT):
        before = tiny.logged(workdir)
        run = tiny.start(workdir, data, QUIET, cache=cache)
        run.wait_until(lambda: tiny.logged(workdir) > before + 8)  # noqa: B023
        run.signal(number)
        assert run.wait().code == 128 + number, run.text()[-2000:]
        step = checkpoint.steps(workdir)[-1]
        assert run.last_line == f"dpjax: {number.name}: saved step {step}"
        assert tiny.logged(workdir) == step > before
    seconds = checkpoint.read_meta(workdir, step)["seconds"]
    tiny.finish(workdir, data, QUIET, cache=cache)
    assert checkpoint.read_meta(workdir, STEPS)["seconds"] > seconds
    assert_ends_as(uninterrupted, workdir)


def test_sigterm_in_an_evaluation_leaves_it_owed(uninterrupted, data, cache, tmp_path):
    workdir, changes = tmp_path / "run", (QUIET, "eval.every=30")
    run = tiny.start(workdir, data, *changes, cache=cache)
    run.wait_until(lambda: re.search(r"pusht: +\d+%", run.text()))
    run.signal(signal.SIGTERM)
    assert run.wait().code == 128 + signal.SIGTERM, run.text()[-2000:]
    meta = checkpoint.read_meta(workdir, 30)
    assert meta["owed"] and meta["score"] is None
    assert not any("score" in entry for entry in tiny.entries(workdir))

    text = tiny.finish(workdir, data, *changes, cache=cache).text()
    assert text.count("(selection seeds)") == 2
    scores = {e["step"]: e["score"] for e in tiny.entries(workdir) if "score" in e}
    assert sorted(scores) == [30, STEPS]
    meta = checkpoint.read_meta(workdir, STEPS)
    assert meta["score"] == pytest.approx(scores[STEPS], abs=1e-5) and not meta["owed"]
    assert_ends_as(uninterrupted, workdir)


def test_a_second_start_in_the_same_folder_is_refused(data, cache, tmp_path):
    workdir = tmp_path / "run"
    first = tiny.start(workdir, data, QUIET, cache=cache)
    first.wait_until(lambda: "episodes to train on" in first.text())
    second = tiny.start(workdir, data, QUIET, cache=cache).wait()
    first.end()
    assert second.code == 2 and f"is locked by pid {first.process.pid} " in second.last_line
