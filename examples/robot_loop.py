"""Push-T as a robot, in real time; the policy is served by another process.

    python examples/robot_loop.py [--seconds 30] [--fps 10] [--kill-after 10]

The simulator moves at its own pace, as a robot does: it does not wait for the policy. The server is
killed half-way and started again. The arm then holds where it is, and goes on with a fresh chunk.
"""

import argparse
from collections.abc import Callable
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading

import jax
from tqdm import tqdm

import dpjax
from dpjax.core import errors
from dpjax.robot import bridges, cadence, clock, drive
from dpjax.robot.base import Command
from dpjax.robot.worker import ThreadWorker
from dpjax.runs import on_robot

RUN = "pusht_demo"


def start_server(port: int, run: str = RUN, steps: int = 10) -> subprocess.Popen:
    """`dpjax.serve` in a process of its own."""
    command = [sys.executable, "-m", "dpjax.serve", "--run", run, "--port", str(port)]
    return subprocess.Popen(
        [*command, "--steps", str(steps)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def ends_when_done(robot: bridges.SimulatedRobot) -> Callable[[], Command]:
    """The operator of a simulation: a success ends the episode."""
    return lambda: Command.SUCCESS if robot.is_done else Command.RUN


def kill_and_restart(server: subprocess.Popen, port: int) -> subprocess.Popen:
    """Kills the server without a warning, and starts another one at the same port."""
    os.kill(server.pid, signal.SIGKILL)
    server.wait()
    return start_server(port)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python examples/robot_loop.py")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--fps", type=float, default=10.0)
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--kill-after", type=float, default=10.0, help="seconds; 0: never")
    parser.add_argument("--picture", type=Path, help="write the histogram of the cycles here")
    args = parser.parse_args()
    # 1. The server, and the run's sizes, task and limits on this side.
    server = [start_server(args.port)]
    policy = dpjax.RemotePolicy(f"ws://127.0.0.1:{args.port}", timeout=2.0)
    run = dpjax.load(RUN)
    print("the server compiles its programs …", flush=True)
    acting = on_robot.acting(RUN, run, sample_actions=policy)
    print(f"sampling takes {1e3 * acting.promise:.1f} ms (99 %)")
    # 2. The robot: it moves once per control step, whether or not an action comes.
    real = clock.real()
    simulator = run.task.simulator
    assert simulator is not None
    robot = bridges.SimulatedRobot(
        simulator._replace(max_steps=10**6),
        real.now,
        seed=simulator.selection_seeds + 1,
        fps=args.fps,
        hold=lambda columns: columns["state"][:2],  # the arm's target is where it is
    )
    # 3. The loop, and the fault.
    if args.kill_after:
        fault = lambda: server.append(kill_and_restart(server[-1], args.port))
        timer = threading.Timer(args.kill_after, fault)
        timer.daemon = True
        timer.start()
    steps = round(args.seconds * args.fps)
    bar = tqdm(total=steps, unit="step")
    attempt = drive.drive(
        robot.robot(), acting, ThreadWorker(), real, jax.random.key(0),
        operator=ends_when_done(robot), max_steps=steps, patience=60.0,
        on_cycle=lambda k: bar.update(),
    )  # fmt: skip
    bar.close()
    # 4. What happened.
    score = simulator.score(max(robot.progress, default=0.0))
    print(f"ended by {attempt.ended_by}; score {score:.2f}. {attempt.reason}")
    print(cadence.describe(attempt.report))
    if args.picture:
        args.picture.write_bytes(cadence.picture(attempt.lateness, attempt.work, 1 / args.fps))
    policy.close()
    server[-1].kill()
    return 0


if __name__ == "__main__":
    errors.run(main)
