"""The control loop in fake time: each action at its own step, whatever the latencies are."""

import itertools

import jax
import numpy as np
import pytest

from dpjax.core.errors import UserError
from dpjax.inference.controller import Controller
from dpjax.robot import acting as acting_lib
from dpjax.robot import drive as drive_lib
from dpjax.robot.acting import Acting
from dpjax.robot.base import Command, Robot
from dpjax.robot.clock import FakeTime
from dpjax.robot.limits import Limits
from dpjax.robot.timeline import Column
from dpjax.robot.worker import SimulatedWorker

FPS = 10.0
TO, TA, TP = 2, 4, 16
KEY = jax.random.key(0)


class Machine:
    """A robot whose only sensor measures the time in control steps; it notes what is sent."""

    def __init__(self, *, latency=0.0, action_latency=0.0):
        self.time = FakeTime(100.0)
        self.sent = []  # (when it was sent, when it is to be reached in steps, action)
        self.holds = 0
        self.closed = False
        self._latency = latency
        self._action_latency = action_latency

    def steps(self, seconds):
        return (seconds - 100.0) * FPS

    def robot(self):
        def read():
            now = self.time.now
            return {"t": (np.array([now]), np.array([[self.steps(now - self._latency)]]))}

        def send(time, action):
            self.sent.append((self.time.now, self.steps(time), action[0]))

        def hold():
            self.holds += 1

        latency = {"t": self._latency}
        return Robot(read, send, hold, lambda: None, FPS, latency, self._action_latency)


def count_on(keys, obs, previous=None, committed=None):
    """A policy that knows where it is: the action of each step is that step's number."""
    present = np.asarray(obs["t"])[:, -1]  # [B, 1]
    ahead = np.arange(TP, dtype=np.float32) - (TO - 1)
    return (present + ahead)[..., None]


def acting_of(sample=count_on, **options):
    columns = {"t": Column(max_age=0.5)}
    return Acting(sample, TO, TP, TA, 1, columns, **options)


def drive(machine, acting, latencies, **options):
    worker = SimulatedWorker(machine.time, iter(latencies))
    clock = machine.time.clock()
    return drive_lib.drive(machine.robot(), acting, worker, clock, KEY, **options)


def check_alignment(machine):
    """Every action is that of its own time, once, in order, and never late."""
    for when, target, action in machine.sent:
        assert action == pytest.approx(target, abs=1e-3)
        assert when <= 100.0 + target / FPS + 0.5 / FPS
    targets = [target for _, target, _ in machine.sent]
    assert (np.diff(targets) > 0.5).all()


@pytest.mark.parametrize("latency, action_latency", [(0.0, 0.0), (0.17, 0.0), (0.05, 0.12)])
@pytest.mark.parametrize("promise", [0.0, 0.15])
def test_actions_are_reached_at_their_own_times(latency, action_latency, promise):
    machine = Machine(latency=latency, action_latency=action_latency)
    attempt = drive(machine, acting_of(promise=promise), itertools.repeat(0.0), max_steps=50)
    check_alignment(machine)
    offset, planning = acting_lib.delays(machine.robot(), acting_of(promise=promise))
    assert offset == np.ceil(round((latency + action_latency) * FPS, 6))
    # The robot holds until the first chunk takes over, and never again. The first observation is
    # as old as the latency, and so is the first history.
    assert attempt.report["starting"] == planning + attempt.report["stale"] <= planning + offset
    assert attempt.report["held"] == 0


@pytest.mark.parametrize("chunks", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_random_latencies(chunks):
    rng = np.random.default_rng(0)
    machine = Machine(latency=0.03)
    # Mostly within the promise of two steps, often late, sometimes beyond the chunk's end.
    latencies = rng.choice(
        [0.05, 0.19, 0.3, 0.6, 1.9], size=2 * chunks, p=[0.5, 0.3, 0.1, 0.08, 0.02]
    )
    attempt = drive(
        machine, acting_of(promise=0.2), latencies, max_steps=5 * chunks, patience=100.0
    )
    check_alignment(machine)
    report = attempt.report
    assert report["chunks"] + report["outdated"] > chunks
    assert report["late"] > chunks / 10 and report["outdated"] > 2 and report["held"] > 10
    # Every cycle either sent something or held.
    assert report["sent"] + report["held"] + report["starting"] == 5 * chunks
    assert report["missed"] == 0 and report["sent"] == len(machine.sent)


def test_what_is_late_and_not_how_fast_the_others_are_decides_what_is_sent():
    sent = []
    for fast in (0.01, 0.19):
        machine = Machine()
        # Every third chunk is late by the same time.
        latencies = itertools.cycle([fast, fast, 0.35])
        drive(machine, acting_of(promise=0.2), latencies, max_steps=100)
        sent.append([action for _, _, action in machine.sent])
    np.testing.assert_array_equal(*sent)


def test_without_a_delay_the_loop_acts_as_the_controller():
    def sample(keys, obs, previous=None, committed=None):
        noise = jax.vmap(lambda key: jax.random.normal(key, (TP, 1)))(keys)
        return np.asarray(noise + 0.1 * obs["t"][:, -1:], np.float32)

    machine = Machine()
    drive(machine, acting_of(sample), itertools.repeat(0.0), max_steps=20)
    controller = Controller(sample, observed=TO, executed=TA)
    controller.reset(KEY)
    want = [controller.act({"t": np.array([machine.steps(100.0 + k / FPS)])}) for k in range(20)]
    np.testing.assert_array_equal([action for *_, action in machine.sent], np.ravel(want))


def test_a_chunk_that_breaks_the_limits_is_not_executed():
    def jump(keys, obs, previous=None, committed=None):
        return count_on(keys, obs) + 1000.0 * (obs["t"][0, -1, 0] > 9.5)

    limits = Limits(np.array([-2.0]), np.array([50.0]), np.array([1.0]), {})
    machine = Machine()
    acting = acting_of(jump, limits=limits)
    attempt = drive(machine, acting, itertools.repeat(0.0), max_steps=30, patience=1.0)
    assert max(action for *_, action in machine.sent) < 12
    assert attempt.ended_by == "patience" and attempt.report["refused"] >= 10
    assert "beyond the demonstrated range" in attempt.reason


def test_a_policy_that_fails_is_asked_again():
    calls = itertools.count()

    def sample(keys, obs, previous=None, committed=None):
        if 3 <= next(calls) < 12:
            raise ConnectionError("the server is gone")
        return count_on(keys, obs)

    machine = Machine()
    acting = acting_of(sample, promise=0.2)
    attempt = drive(machine, acting, itertools.repeat(0.1), max_steps=100)
    check_alignment(machine)
    assert attempt.report["failed"] == 9 and attempt.report["held"] > 0
    assert round(machine.sent[-1][1]) == 99  # it goes on after the hold


def test_not_finite_is_refused_without_limits():
    def sample(keys, obs, previous=None, committed=None):
        return np.full((1, TP, 1), np.nan, np.float32)

    machine = Machine()
    attempt = drive(machine, acting_of(sample), itertools.repeat(0.0), patience=1.0)
    assert not machine.sent and machine.holds > 5
    assert "not finite" in attempt.reason


def test_a_pause_voids_what_was_sampled_before():
    commands = [Command.RUN] * 10 + [Command.PAUSE] * 10 + [Command.RUN] * 10 + [Command.SUCCESS]
    machine = Machine()
    attempt = drive(
        machine, acting_of(promise=0.15), itertools.repeat(0.1), operator=iter(commands).__next__
    )
    check_alignment(machine)
    targets = [round(target) for _, target, _ in machine.sent]
    # Two steps of sampling at the start and after the pause.
    assert targets == [*range(2, 10), *range(22, 30)]
    assert attempt.ended_by == "success"


def test_corrections_are_marked_and_clamped():
    commands = [Command.RUN] * 4 + [Command.CORRECT] * 3 + [Command.PAUSE] + [Command.STOP]
    limits = Limits(np.array([-2.0]), np.array([50.0]), np.array([1.0]), {})
    machine = Machine()
    attempt = drive(
        machine,
        acting_of(limits=limits),
        itertools.repeat(0.0),
        operator=iter(commands).__next__,
        correct=lambda: np.array([99.0]),
    )
    assert [step.is_intervention for step in attempt.steps] == [False] * 4 + [True] * 3
    assert attempt.steps[-1].action[0] == pytest.approx(50 + 0.05 * 52)
    assert np.isnan(attempt.steps[-1].planned).all()


def test_a_stale_sensor_stops_new_chunks():
    machine = Machine()
    robot = machine.robot()
    first = robot.read()
    robot = robot._replace(read=lambda: first)  # the sensor has died
    worker = SimulatedWorker(machine.time, itertools.repeat(0.0))
    attempt = drive_lib.drive(robot, acting_of(), worker, machine.time.clock(), KEY, patience=1.0)
    assert attempt.ended_by == "patience" and attempt.report["stale"] > 0
    assert "'t'" in attempt.reason


def test_a_chunk_that_is_too_short_for_the_delay_is_refused():
    with pytest.raises(UserError, match="does not fit a delay of 12 steps") as caught:
        acting_lib.delays(Machine(latency=0.9).robot(), acting_of(promise=0.25))
    assert caught.value.argument == "executed"


def test_a_cycle_that_begins_late_sends_nothing():
    machine = Machine()
    robot = machine.robot()
    slow = iter([0.0, 0.0, 0.27] + [0.0] * 100)

    def read():
        samples = robot.read()
        machine.time.now += next(slow)
        return samples

    worker = SimulatedWorker(machine.time, itertools.repeat(0.0))
    attempt = drive_lib.drive(
        robot._replace(read=read), acting_of(), worker, machine.time.clock(), KEY, max_steps=20
    )
    # Step 2 reads until 4.7, when its own time and those of 3 and 4 are over.
    assert attempt.report["over_budget"] == 1 and attempt.report["missed"] == 3
    assert [round(target) for _, target, _ in machine.sent] == [0, 1, *range(5, 20)]
