"""The unmodified openpi-client 0.1.2, in an environment of its own (`make .venv-openpi/ready`)."""

import json
from pathlib import Path
import subprocess
import threading

import jax
import numpy as np
import pytest

import dpjax
from dpjax import serve
from dpjax.serving.service import episode_seed

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-openpi" / "bin" / "python"
EPISODES = 20
STEPS = 100  # of an episode at most: a third of the task's, for time

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="make .venv-openpi/ready makes it"),
]


class Robot:
    """The process with openpi's client."""

    def __init__(self, port):
        command = [
            PYTHON,
            "-W",
            "ignore",
            ROOT / "tests/support/openpi_robot.py",
            "127.0.0.1",
            str(port),
        ]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen(command, **pipes)
        self.seen = json.loads(self.process.stdout.readline())

    def begin(self):
        self.tell("episode")

    def act(self, state):
        self.tell(json.dumps(np.asarray(state, float).tolist()))
        return np.array(json.loads(self.process.stdout.readline()), np.float32)

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()


@pytest.fixture(scope="module", params=["chunk", "step"])
def robot(request):
    """(robot, server) of the shipped policy."""
    args = ["--run", "pusht_demo", "--port", "0", "--batch", "1", "--seed", "0"]
    _, server = serve.set_up(serve.arguments([*args, "--reply", request.param]))
    port = server.start()
    serve.warm_up(server.service)
    server.is_ready.set()
    threading.Thread(target=server.service.worker.run, daemon=True).start()
    robot = Robot(port)
    yield robot, server
    robot.process.kill()
    server.stop(1.0)


def test_it_is_greeted_answered_and_refused_and_answered_again(robot):
    robot, server = robot
    seen = robot.seen
    steps = 1 if server.service.reply == "step" else 15
    assert seen["health"] == "OK\n"
    assert seen["metadata"]["action_horizon"] == steps and seen["metadata"]["observed"] == 2
    assert seen["shape"] == [steps, 2] and seen["dtype"] == "float32" and seen["finite"]
    assert seen["timing"] == ["infer_ms", "policy_ms", "prev_total_ms"]
    missing, size, nan, large = seen["errors"]
    assert "'state' is missing" in missing and "cannot be read" in size
    assert "is nan" in nan and "at most 1048576 are read" in large
    assert np.shape(seen["broker"]) == (steps, 2) and np.isfinite(seen["broker"]).all()


def test_twenty_episodes_are_those_of_a_local_run(robot):
    """In step mode every action is bit-equal to that of a local Controller, and so is the score.

    The local one acts beside it on the same states, since the simulator itself differs in the last
    bit between two runs of one episode.
    """
    robot, server = robot
    if server.service.reply != "step":
        pytest.skip("a chunk client's history is repeated")
    run = dpjax.load("pusht_demo")
    simulator = run.task.simulator
    env = simulator.make()
    best = []
    for episode in range(EPISODES):
        columns = simulator.reset(env, simulator.selection_seeds + episode)
        robot.begin()
        controller = None
        progress = 0.0
        for _ in range(STEPS):
            action = robot.act(columns["state"])
            if controller is None:
                # The server's seed is 0, and this connection began its newest episode.
                seed = episode_seed(0, server.service.counts["episodes"])
                controller = run.controller(jax.random.key(seed))
            local = controller.act(run.task.observe(columns))
            np.testing.assert_array_equal(action, local)
            columns, now, done = simulator.step(env, action)
            progress = max(progress, now)
            if done:
                break
        best.append(progress)
    assert np.mean([simulator.score(p) for p in best]) > 0.3
    assert server.service.counts["errors"] == 0
