"""kill -9 of a process that saves: at most the save in flight is lost."""

import os
from pathlib import Path
import random
import signal
import subprocess
import sys
import time

import pytest
from support import states
from support.states import make, same, write

from dpjax.training import checkpoint

pytestmark = pytest.mark.slow
two_steps = states.two_steps  # fixtures
run_dir = states.run_dir
ROOT = Path(__file__).parents[2]

# Saves step after step, and prints each one that is complete.
LOOP = """
import sys
from dpjax.training import checkpoint
from support import states
lock = checkpoint.lock(sys.argv[1])
state = checkpoint.restore_latest(sys.argv[1], states.make(0))
first = 0 if state is None else int(state.step)
assert state is None or states.same(state, states.make(first))
print("restored", first, flush=True)
checkpoints = checkpoint.Checkpoints(sys.argv[1], keep_best=2)
last = None
for step in range(first + 1, first + 1 + int(sys.argv[2])):
    checkpoints.save(states.make(step), config=states.CONFIG, score=-step)
    if last is not None:
        print("complete", last, flush=True)
    last = step
checkpoints.close()
print("complete", last, flush=True)
"""


def save_loop(run_dir, count, *, kill_at=None, kill_after=None):
    """Runs LOOP in a process: (exit code, step restored, last complete step)."""
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    if kill_at:
        env["DPJAX_KILL_AT"] = kill_at
    command = [sys.executable, "-c", LOOP, run_dir, str(count)]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    first = int(child.stdout.readline().split()[1])
    if kill_after is not None:
        time.sleep(kill_after)
        child.kill()
    lines = child.stdout.read().split("\n")[:-1]  # a kill may cut the last one off
    done = [int(line.split()[1]) for line in lines if line.startswith("complete")]
    return child.wait(), first, max(done, default=first)


def newest(run_dir):
    """The step that a restore gives, after checking that it is that step's state."""
    state = checkpoint.restore_latest(run_dir, make(0))
    assert same(state, make(int(state.step)))
    return int(state.step)


POINTS = {  # point: (the kill, the newest step after it)
    "before_save": ("before_save:2", 3),
    "after_arrays": ("after_arrays:2", 3),
    "before_commit": ("before_commit:2", 3),
    "during_delete": ("during_delete:2", 4),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_at_a_named_point_loses_at_most_the_save_in_flight(run_dir, point):
    kill_at, want = POINTS[point]
    code, first, done = save_loop(run_dir, 4, kill_at=kill_at)
    assert code == -signal.SIGKILL and first == 2
    assert newest(run_dir) == want >= done
    # The next process starts from there, cleans up and goes on.
    write(run_dir, want + 1, keep_best=2)
    assert newest(run_dir) == want + 1
    assert all(name.isdigit() for name in os.listdir(run_dir / "checkpoints"))


def test_kills_at_random_times_lose_at_most_the_save_in_flight(run_dir):
    rng = random.Random(0)
    reached = 2
    for longest in (0.5, 1.5, 3.0):
        wait = rng.uniform(0.05, longest)
        code, first, done = save_loop(run_dir, 60, kill_after=wait)
        assert code == -signal.SIGKILL
        assert first == reached, f"killed after {wait} s"
        reached = newest(run_dir)
        assert done <= reached, f"killed after {wait} s"
