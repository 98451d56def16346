"""The examples run: against fake robots, and Push-T in real time with a server that dies."""

import importlib.util
import json
from pathlib import Path
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import dpjax
from dpjax.core.spec import Spec
from dpjax.data import rlds
from dpjax.robot import limits
from dpjax.robot.base import Command
from dpjax.robot.clock import FakeTime
from dpjax.robot.limits import Limits
from dpjax.tasks import custom

ROOT = Path(__file__).parents[2]


def example(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Arm:
    """LeRobot's interface of an arm with six joints, which reaches its targets at once."""

    def __init__(self, joints):
        self.joints = dict.fromkeys((f"{joint}.pos" for joint in joints), 0.0)
        self.sent = 0

    def get_observation(self):
        return {**self.joints, "front": np.full((8, 8, 3), self.sent % 256, np.uint8)}

    def send_action(self, action):
        self.joints = dict(action)
        self.sent += 1

    def disconnect(self):
        self.joints = {}


def tiny_run(**observations):
    """A run whose chunks move every joint by 0.1 per step."""

    def sample_actions(keys, obs, previous=None, committed=None):
        state = np.asarray(obs["observation.state"])[:, -1:]
        return state + 0.1 * np.arange(8, dtype=np.float32)[:, None]

    horizon = SimpleNamespace(obs=1, predict=8, act=4)
    config = SimpleNamespace(horizon=horizon, representation=SimpleNamespace(layouts={}))
    spec = Spec(observations, 6, "")
    return SimpleNamespace(
        sample_actions=sample_actions, config=config, spec=spec, task=custom.TASK,
        warm_up=lambda: 0.0,
    )  # fmt: skip


def test_an_arm_of_lerobot(tmp_path, monkeypatch, capsys):
    so101 = example("so101")
    camera = "observation.images.front"
    run = tiny_run(**{camera: (8, 8, 3), "observation.state": 6})
    monkeypatch.setattr(dpjax, "load", lambda name: run)
    (tmp_path / "run").mkdir()
    box = Limits(np.full(6, -1.0), np.full(6, 9.0), np.full(6, 0.5), {})
    (tmp_path / "run" / "limits.json").write_text(json.dumps(limits.to_json(box)))
    time = FakeTime()
    commands = iter([Command.RUN] * 12 + [Command.SUCCESS] + [Command.RUN] * 5 + [Command.STOP])
    out = tmp_path / "rollouts"
    options = ["--run", str(tmp_path / "run"), "--out", str(out), "--camera-latency", "0"]
    arm = Arm(so101.JOINTS)
    attempts = so101.session(arm, so101.arguments(options), commands.__next__, time.clock())
    assert [attempt.ended_by for attempt in attempts] == ["success", "stop"]
    assert attempts[0].report["sent"] > 8 and "recorded" in capsys.readouterr().out
    features = {"action": "action", "image": f"observation/{camera}"}
    assert len(list(rlds.stream(out, features=features))) == 2


def test_a_node_of_ros():
    ros = example("ros2_node")
    published = []
    node = SimpleNamespace(
        create_subscription=lambda *_: None,
        create_publisher=lambda *_: SimpleNamespace(publish=published.append),
        destroy_node=lambda: None,
    )
    stamp = lambda: SimpleNamespace(header=SimpleNamespace(stamp=SimpleNamespace()))
    messages = SimpleNamespace(JointState=stamp, Image=None)
    rclpy = SimpleNamespace(create_node=lambda name: node)
    joints = ros.Node(rclpy, messages, ["a", "b"], now=lambda: 7.0)

    def at(time, **values):
        header = SimpleNamespace(stamp=SimpleNamespace(sec=time, nanosec=500_000_000))
        return SimpleNamespace(header=header, **values)

    joints.on_joints(at(1, name=["b", "other", "a"], position=[2.0, 9.0, 1.0]))
    pixels = np.arange(2 * 8, dtype=np.uint8)  # two rows of two pixels, padded to eight bytes
    joints.on_image(at(2, data=pixels.tobytes(), height=2, width=2, step=8, encoding="bgr8"))
    samples = joints.read()
    np.testing.assert_array_equal(samples["state"][1], [[1.0, 2.0]])
    assert samples["image"][0].tolist() == [2.5]
    np.testing.assert_array_equal(samples["image"][1][0, 1], [[10, 9, 8], [13, 12, 11]])
    assert joints.read() == {}
    robot = joints.robot(20.0)
    robot.hold()  # nothing was sent yet
    robot.send(3.25, np.array([0.5, -0.5]))
    robot.hold()
    times = [m.header.stamp.sec + 1e-9 * m.header.stamp.nanosec for m in published]
    assert times == [3.25, 7.0] and published[0].position == published[1].position == [0.5, -0.5]


@pytest.mark.slow
def test_push_t_in_real_time_outlives_its_server(tmp_path):
    command = [sys.executable, str(ROOT / "examples" / "robot_loop.py"), "--port", "8127"]
    command += ["--seconds", "60", "--kill-after", "3", "--picture", str(tmp_path / "cycles.png")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-2000:]
    counts = {
        name: int(n) for n, name in re.findall(r"(\d+) (sent|held|failed|chunks)", done.stdout)
    }
    # Chunks of 8 steps: more than 3 seconds' worth came, so some are from after the restart.
    assert counts["failed"] >= 1 and counts["held"] >= 1 and counts["chunks"] > 5
    assert (tmp_path / "cycles.png").stat().st_size > 1000
