"""Bridges and recordings: LeRobot's robots, simulators as robots, RLDS of what happened."""

import itertools

import jax
import numpy as np
import pytest

from dpjax.core.errors import UserError
from dpjax.data import rlds
from dpjax.robot import bridges, record
from dpjax.robot import drive as drive_lib
from dpjax.robot.acting import Acting
from dpjax.robot.base import Command
from dpjax.robot.clock import FakeTime
from dpjax.robot.timeline import Column
from dpjax.robot.worker import SimulatedWorker
from dpjax.tasks.base import Simulator


class Arm:
    """What LeRobot calls a robot: two joints and a camera."""

    def __init__(self):
        self.sent = []
        self.connected = True

    def get_observation(self):
        image = np.full((4, 4, 3), len(self.sent), np.uint8)
        return {"a.pos": 1.0, "b.pos": 2.0, "other": 9.0, "front": image}

    def send_action(self, action):
        self.sent.append(action)
        return action

    def disconnect(self):
        self.connected = False


def arm_robot(arm, now, **options):
    names = {"state": ["b.pos", "a.pos"], "action": ["a.pos", "b.pos"], "fps": 10.0}
    return bridges.lerobot(arm, now, **{**names, "cameras": {"image": "front"}, **options})


def test_a_robot_of_lerobot():
    arm = Arm()
    robot = arm_robot(arm, lambda: 5.0)
    samples = robot.read()
    np.testing.assert_array_equal(samples["observation.state"][1], [[2.0, 1.0]])
    assert samples["image"][1].shape == (1, 4, 4, 3) and samples["image"][0].tolist() == [5.0]
    robot.hold()  # where it is
    robot.send(5.1, np.array([3.0, 4.0]))
    robot.hold()  # the last target
    assert arm.sent == [{"a.pos": 1.0, "b.pos": 2.0}, *[{"a.pos": 3.0, "b.pos": 4.0}] * 2]
    robot.close()
    assert not arm.connected


def test_a_name_that_the_robot_does_not_have():
    robot = arm_robot(Arm(), lambda: 0.0, state=["a.pos", "wrist.pos"])
    with pytest.raises(UserError, match=r"lacks wrist\.pos; it has a\.pos, b\.pos, front, other"):
        robot.read()


class Point:
    """A point on a line that moves by its action."""

    def __init__(self):
        self.x = 0.0
        self.count = 0

    def close(self):
        pass


def point_simulator():
    def columns(env):
        return {"x": np.array([env.x], np.float32)}

    def reset(env, seed):
        env.x = float(seed)
        return columns(env)

    def step(env, action):
        env.x += float(action[0])
        env.count += 1
        return columns(env), env.x, env.count >= 12

    nothing = lambda *_: None
    return Simulator(Point, reset, step, nothing, nothing, float, bool, 100, -1, 1)


def halve(keys, obs, previous=None, committed=None):
    """Chunks of four: each step moves by a tenth of the newest position."""
    return np.repeat(0.1 * obs["x"][:, -1:], 4, axis=1)


def attempt_of(time, commands, correct=None):
    sim = bridges.SimulatedRobot(
        point_simulator(), lambda: time.now, seed=8, fps=10.0, hold=lambda columns: np.zeros(1)
    )
    acting = Acting(halve, 1, 4, 2, 1, {"x": Column()})
    worker = SimulatedWorker(time, itertools.repeat(0.0))
    attempt = drive_lib.drive(
        sim.robot(), acting, worker, time.clock(), jax.random.key(0),
        operator=iter(commands).__next__, correct=correct,
    )  # fmt: skip
    return sim, attempt


def test_a_simulator_is_a_robot():
    sim, attempt = attempt_of(FakeTime(), [Command.RUN] * 6 + [Command.PAUSE] * 2 + [Command.STOP])
    # Two steps of each chunk: x grows by a tenth of x at every second step.
    want = [8.0, 8.8, 9.6, 10.56, 11.52, 12.672]
    np.testing.assert_allclose([s.columns["x"][0] for s in attempt.steps], want, rtol=1e-6)
    # The pause moves nothing. The state of a step is seen at the next reading.
    np.testing.assert_allclose(sim.progress[-1], 13.824, rtol=1e-6)
    assert len(sim.progress) == 7


def test_recordings_can_be_trained_on(tmp_path):
    session = record.Session(tmp_path / "rollouts")
    commands = [Command.RUN] * 4 + [Command.CORRECT] * 3 + [Command.PAUSE] + [Command.SUCCESS]
    _, attempt = attempt_of(FakeTime(50.0), commands, correct=lambda: np.array([-1.0]))
    assert session.add(attempt) == 1
    _, dropped = attempt_of(FakeTime(), [Command.RUN] * 2 + [Command.DROP])
    assert session.add(dropped) == 0
    session.finish()
    assert not (tmp_path / "rollouts.recording").exists()
    names = dict(
        x="observation/x",
        action="action",
        planned="planned_action",
        who="is_intervention",
        t="time",
    )
    features = {**names, "chunk": "chunk"}
    [episode] = rlds.stream(tmp_path / "rollouts", features=features)
    np.testing.assert_array_equal(episode["who"][:, 0], [0, 0, 0, 0, 1, 1, 1])
    np.testing.assert_allclose(episode["action"][:, 0], [0.8, 0.8, 0.96, 0.96, -1, -1, -1])
    np.testing.assert_allclose(episode["planned"][:, 0], [0.8, 0.8, 0.96, 0.96, 0, 0, 0])
    np.testing.assert_allclose(episode["t"][:, 0], np.arange(7) / 10, atol=1e-6)
    np.testing.assert_array_equal(episode["chunk"][:, 0], [0, 0, 1, 1, -1, -1, -1])


def test_corrections_alone(tmp_path):
    commands = [Command.RUN] * 2 + [Command.CORRECT] * 3 + [Command.PAUSE] + [Command.RUN] * 2
    commands += [Command.CORRECT] * 1 + [Command.FAILURE]
    _, attempt = attempt_of(FakeTime(), commands, correct=lambda: np.array([-1.0]))
    session = record.Session(tmp_path / "corrections", whole=False)
    assert session.add(attempt) == 2
    session.finish()
    lengths = [len(e["a"]) for e in rlds.stream(tmp_path / "corrections", features={"a": "action"})]
    assert lengths == [3, 1]


def test_a_session_that_crashed_goes_on(tmp_path, caplog):
    _, attempt = attempt_of(FakeTime(), [Command.RUN] * 3 + [Command.SUCCESS])
    first = record.Session(tmp_path / "out")
    first.add(attempt)
    with pytest.raises(UserError, match="another process records"):
        record.Session(tmp_path / "out")
    first._lock.close()  # as the end of its process does
    second = record.Session(tmp_path / "out")
    assert "1 episodes of an unfinished session are kept" in caplog.text
    second.add(attempt)
    second.finish()
    assert len(list(rlds.stream(tmp_path / "out", features={"a": "action"}))) == 2
    with pytest.raises(UserError, match="exists already"):
        record.Session(tmp_path / "out")
