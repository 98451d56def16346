"""An SO-101 arm by LeRobot's robot class, with keys, limits and recordings.

    pip install 'lerobot[feetech]' dpjax        # in the environment of the robot's computer
    python examples/so101.py --run runs/mine --port /dev/ttyACM0 --camera 0 --out data/rollouts

Keys: space pauses and goes on, s success, f failure, d drop, q quit. The arm holds its last target
whenever no action may be sent. Nothing here is special to the SO-101: any robot with
`get_observation` and `send_action` works in the same way.
"""

import argparse
from typing import Any

import jax

import dpjax
from dpjax.core import errors
from dpjax.robot import bridges, cadence, clock, drive, operator, record
from dpjax.robot.worker import ThreadWorker
from dpjax.runs import on_robot

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper")


def connect(port: str, camera: int, fps: float) -> Any:
    """LeRobot's own class, connected."""
    from lerobot.cameras.opencv.configuration_opencv import OpenCVCameraConfig
    from lerobot.robots.so101_follower import SO101Follower, SO101FollowerConfig

    cameras = {"front": OpenCVCameraConfig(index_or_path=camera, fps=int(fps))}
    device = SO101Follower(SO101FollowerConfig(port=port, cameras=cameras))
    device.connect()
    return device


def session(device: Any, args: argparse.Namespace, commands: Any, time: clock.Clock) -> list:
    """Episodes until the person stops; returns the attempts.

    commands: () -> Command. time: the loop's clock.
    """
    run = dpjax.load(args.run)
    run.warm_up()
    acting = on_robot.acting(args.run, run, max_age=0.2)
    names = [f"{joint}.pos" for joint in JOINTS]
    robot = bridges.lerobot(
        device,
        time.now,
        state=names,
        action=names,
        cameras={"observation.images.front": "front"},
        state_name="observation.state",
        fps=args.fps,
        # Where a frame was taken before it could be read. Measure it: dpjax.robot.lag.
        latency={"observation.images.front": args.camera_latency},
    )
    recording = record.Session(args.out) if args.out else None
    attempts = []
    while not attempts or attempts[-1].ended_by != "stop":
        key = jax.random.key(len(attempts))
        attempt = drive.drive(robot, acting, ThreadWorker(), time, key, operator=commands)
        print(cadence.describe(attempt.report), attempt.reason, sep="\n")
        attempts.append(attempt)
        if recording:
            recording.add(attempt)
    robot.close()
    if recording:
        print(f"recorded: {recording.finish('SO-101')}")
    return attempts


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python examples/so101.py")
    parser.add_argument("--run", required=True)
    parser.add_argument("--port", default="/dev/ttyACM0")
    parser.add_argument("--camera", type=int, default=0)
    parser.add_argument("--camera-latency", type=float, default=0.05, help="seconds")
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument("--out", help="record here, as RLDS")
    return parser.parse_args(argv)


def main() -> int:
    args = arguments()
    device = connect(args.port, args.camera, args.fps)
    print(operator.HELP)
    with operator.terminal() as commands:
        session(device, args, commands, clock.real())
    return 0


if __name__ == "__main__":
    errors.run(main)
