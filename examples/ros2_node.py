"""A ROS 2 node: joint states and an image in, joint targets out.

    python3 examples/ros2_node.py --run runs/mine --joints joint1,joint2 --fps 20

Runs in the environment of ROS (rclpy comes with it), with dpjax installed there. Messages are
stamped by their sender, and the loop uses those times: the clocks of all machines must agree.
"""

import argparse
import threading
from typing import Any

import jax
import numpy as np

import dpjax
from dpjax.core import errors
from dpjax.robot import cadence, clock, drive
from dpjax.robot.base import Robot
from dpjax.robot.worker import ThreadWorker
from dpjax.runs import on_robot


def seconds(stamp: Any) -> float:
    """A ROS time stamp in seconds."""
    return stamp.sec + 1e-9 * stamp.nanosec


def image_of(message: Any) -> np.ndarray:
    """A sensor_msgs/Image of encoding rgb8 or bgr8 as uint8 [H, W, 3], rgb."""
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    pixels = rows[:, : 3 * message.width].reshape(message.height, message.width, 3)
    return pixels[..., ::-1] if message.encoding == "bgr8" else pixels


class Node:
    """Collects what the topics bring, and publishes targets.

    Subscriptions call `on_joints` and `on_image` from ROS's own thread.
    """

    def __init__(self, rclpy: Any, messages: Any, joints: list[str], now: Any):
        """messages: a namespace with JointState and Image. now: the loop's clock."""
        self._joints = joints
        self._now = now
        self._lock = threading.Lock()
        self._samples: dict[str, list] = {"state": [], "image": []}
        self._messages = messages
        self._target: np.ndarray | None = None
        self.node = rclpy.create_node("dpjax")
        self.node.create_subscription(messages.JointState, "joint_states", self.on_joints, 10)
        self.node.create_subscription(messages.Image, "image", self.on_image, 2)
        self._publisher = self.node.create_publisher(messages.JointState, "joint_targets", 10)

    def on_joints(self, message: Any) -> None:
        """The joints in the policy's order, whatever order the message has."""
        position = dict(zip(message.name, message.position))
        values = np.array([position[name] for name in self._joints], np.float32)
        self._keep("state", seconds(message.header.stamp), values)

    def on_image(self, message: Any) -> None:
        self._keep("image", seconds(message.header.stamp), image_of(message))

    def _keep(self, name: str, time: float, value: np.ndarray) -> None:
        with self._lock:
            self._samples[name].append((time, value))

    def read(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """All that has come since the last call."""
        with self._lock:
            samples = self._samples
            self._samples = {name: [] for name in samples}
        return {
            name: (np.array([time for time, _ in rows]), np.stack([value for _, value in rows]))
            for name, rows in samples.items()
            if rows
        }

    def send(self, time: float, action: np.ndarray) -> None:
        """Publishes a target, stamped with when it is to be reached."""
        message = self._messages.JointState()
        message.header.stamp.sec = int(time)
        message.header.stamp.nanosec = int(1e9 * (time - int(time)))
        message.name = list(self._joints)
        message.position = [float(x) for x in action]
        self._target = action
        self._publisher.publish(message)

    def hold(self) -> None:
        """The last target again: a position controller keeps the arm there."""
        if self._target is not None:
            self.send(self._now(), self._target)

    def robot(self, fps: float) -> Robot:
        """This node as the loop's robot."""
        return Robot(self.read, self.send, self.hold, self.node.destroy_node, fps)


def main() -> int:
    import time

    import rclpy
    from sensor_msgs import msg as messages

    parser = argparse.ArgumentParser(prog="ros2_node.py")
    parser.add_argument("--run", required=True)
    parser.add_argument("--joints", required=True, help="names in the policy's order, with commas")
    parser.add_argument("--fps", type=float, required=True)
    args = parser.parse_args()
    rclpy.init()
    # Stamps are seconds since 1970, so the loop's clock is too.
    wall = clock.real()
    offset = time.time() - time.monotonic()
    now = lambda: wall.now() + offset
    node = Node(rclpy, messages, args.joints.split(","), now)
    threading.Thread(target=rclpy.spin, args=(node.node,), daemon=True).start()
    run = dpjax.load(args.run)
    attempt = drive.drive(
        node.robot(args.fps),
        on_robot.acting(args.run, run),
        ThreadWorker(),
        clock.Clock(now, lambda deadline: wall.until(deadline - offset)),
        jax.random.key(0),
    )
    print(cadence.describe(attempt.report))
    rclpy.shutdown()
    return 0


if __name__ == "__main__":
    errors.run(main)
