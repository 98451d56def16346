"""The small parts of the loop: lag, keys, chunks, the worker thread, the report."""

import threading
import time

import numpy as np
import pytest

from dpjax.core.errors import UserError
from dpjax.robot import cadence, chunks, clock, operator
from dpjax.robot import lag as lag_lib
from dpjax.robot.base import Command
from dpjax.robot.cadence import Counts
from dpjax.robot.chunks import Chunk
from dpjax.robot.worker import ThreadWorker


@pytest.mark.parametrize("seconds", [-0.12, 0.0, 0.083, 0.35])
def test_lag_of_a_motion(seconds):
    rng = np.random.default_rng(0)
    motion = lambda t: np.sin(2.1 * t) + 0.4 * np.sin(5.3 * t + 1)
    sent = np.arange(0, 12, 0.02)
    measured = np.sort(rng.uniform(0, 12, 900))
    got = lag_lib.lag(sent, motion(sent), measured, 3 * motion(measured - seconds) + 7, largest=0.5)
    assert got.seconds == pytest.approx(seconds, abs=2e-3)
    assert got.correlation > 0.99


def test_lag_of_two_different_motions_is_refused():
    t = np.arange(0, 10, 0.01)
    noise = np.random.default_rng(0).normal(size=len(t))
    with pytest.raises(UserError, match="do not agree"):
        lag_lib.lag(t, np.sin(t), t, noise)
    with pytest.raises(UserError, match="does not move"):
        lag_lib.lag(t, np.sin(t), t, np.ones(len(t)))
    with pytest.raises(UserError, match="overlap by 0.00 s"):
        lag_lib.lag(t, np.sin(t), t + 20, np.sin(t))


def test_keys_of_a_person():
    assert operator.after(Command.RUN, " ") is Command.PAUSE
    assert operator.after(Command.PAUSE, " ") is Command.RUN
    assert operator.after(Command.RUN, "x?") is Command.RUN
    # From a correction the policy does not start at once.
    assert operator.after(Command.CORRECT, "r") is Command.PAUSE
    assert operator.after(Command.CORRECT, "rr") is Command.RUN
    assert operator.after(Command.RUN, "sf") is Command.SUCCESS


def test_keys_need_a_terminal():
    with pytest.raises(UserError, match="terminal"), operator.terminal():
        pass


def test_the_steps_of_a_chunk():
    # To = 2: step 0 is the past, step 1 belongs to the observation's own target.
    chunk = Chunk(np.arange(6.0)[:, None], observed=2, step=10, number=0)
    assert [chunk.action(k) for k in (9, 15)] == [None, None]
    assert [float(chunk.action(k)[0]) for k in range(10, 15)] == [1, 2, 3, 4, 5]


def test_previous_holds_what_was_sent_and_ends_where_the_chunk_does():
    chunk = Chunk(np.arange(6.0)[:, None], observed=2, step=10, number=0)
    moved = chunks.previous(chunk, {12: np.array([77.0])}, 13, (6, 1), 2)
    np.testing.assert_array_equal(moved[:, 0], [77, 4, 5, np.nan, np.nan, np.nan])
    # From the present on the actions 13 and 14 are known.
    assert [chunks.committed(moved, 2, delay) for delay in (0, 1, 2, 4)] == [0, 1, 2, 2]
    assert chunks.previous(None, {}, 0, (6, 1), 2) is None and chunks.committed(None, 2, 3) == 0


def test_the_thread_runs_beside_its_caller():
    worker = ThreadWorker()
    go = threading.Event()
    worker.start(lambda: go.wait(5) and 7)
    assert not worker.is_ready() and not worker.is_ready(0.01)
    go.set()
    assert worker.is_ready(5.0) and worker.result() == 7
    worker.start(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        worker.result()
    worker.close()


def test_the_real_clock_is_never_early():
    real = clock.real()
    start = time.monotonic()
    for i in range(1, 6):
        real.until(start + 0.004 * i)
        assert real.now() >= start + 0.004 * i
    real.until(start)  # the past: at once


def test_the_report():
    counts = Counts(sent=3, held=1, over_budget=1, chunks=2)
    result = cadence.summary(counts, [0.0, 0.001, 0.002, 0.5], [0.01, 0.01, 0.01, 0.2])
    assert result["cycles"] == 4 and result["over_budget_share"] == 0.25
    assert result["lateness_ms"]["max"] == 500 and result["work_ms"]["p50"] == pytest.approx(10)
    text = cadence.describe(result)
    assert "25.00% over budget" in text and "3 sent, 1 held" in text
    assert cadence.picture([0.0, 1e-3], [1e-2, 2e-2], 0.1).startswith(b"\x89PNG")
