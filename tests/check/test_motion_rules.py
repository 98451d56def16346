"""What the check finds about angles, jumps and rotations."""

import numpy as np
import pytest
from support import check_cases as cases

from dpjax.check.rules import motion


@pytest.mark.parametrize("turn", [2 * np.pi, 360.0])
def test_an_angle_that_wraps_is_named_with_its_first_jump(turn):
    rng = np.random.default_rng(0)

    def spin(episode):
        angle = (0.02 * turn * np.arange(40) + rng.uniform(0, turn)) % turn
        episode["state"][:, 2] = angle

    finding = cases.only(motion.angle_wraps(cases.changed(spin)))
    assert "state[2]" in finding.reason and "episode" in finding.reason
    assert ("radians" in finding.reason) == (turn < 7)


def test_a_position_that_jumps_as_far_as_a_turn_is_not_an_angle():
    train = cases.episodes()
    for episode in train:
        episode["action"][:, 0] = np.linspace(100, 110, 40)
    train[3]["action"][20:, 0] += 300
    assert not motion.angle_wraps(cases.context(train))
    finding = cases.only(motion.action_jumps(cases.context(train)))
    assert "episode 3, step 19" in finding.reason and "action[0]" in finding.reason


def test_a_gripper_does_not_jump():
    def switch(episode):
        episode["action"][:, 1] = np.arange(40) // 20

    assert not motion.action_jumps(cases.changed(switch))


def turning(key="pose_quat", flip=False, scale=1.0):
    """Episodes with a quaternion that turns about z; its sign may change halfway."""
    episodes = cases.episodes()
    for i, episode in enumerate(episodes):
        half = np.linspace(0.1 * i, 0.1 * i + 0.4, 40)  # half of the angle, radians
        q = np.stack([np.cos(half), 0 * half, 0 * half, np.sin(half)], axis=1) * scale
        if flip:
            q[20:] *= -1
        episode[key] = q.astype(np.float32)
        episode["action"] = episode.pop("action")  # the last column
    return episodes


def with_quaternions(train, **changes):
    """The context of such episodes; changes: of config.representation."""
    config = cases.make_config()
    key = next(key for key in train[0] if key not in ("state", "action"))
    config.data.columns[key] = f"observation/{key}"
    config.representation.update(changes)
    return cases.context(train, val=train[:2], config=config)


def test_a_quaternion_that_flips_is_named_unless_it_is_represented_as_6d():
    context = with_quaternions(turning(key="rotation", flip=True))
    finding = cases.only(motion.quaternions(context))
    assert "rotation[0-3] flips its sign 24 times, first at episode 0, step 19" in finding.reason
    assert "config.representation.layouts.rotation" in finding.remedy
    layouts = cases.ConfigDict(dict(rotation="quaternion_wxyz"))
    assert not motion.quaternions(with_quaternions(turning("rotation", True), layouts=layouts))


def test_a_quaternion_of_another_length_is_recognized_by_its_name():
    finding = cases.only(motion.quaternions(with_quaternions(turning(scale=1.2))))
    assert "pose_quat[0-3]" in finding.reason and "0.2" in finding.reason
    assert not motion.quaternions(with_quaternions(turning()))


def test_an_angle_that_mostly_rests_and_wraps_once_is_named():
    train = cases.episodes()
    for episode in train:
        episode["state"][:, 2] = 3.0
    # pi is passed in two steps of one episode: 3.0, 3.1, -3.08, -2.98 = 3.3.
    train[5]["state"][20:, 2] = [3.1, 3.2 - 2 * np.pi, *[3.3 - 2 * np.pi] * 18]
    finding = cases.only(motion.angle_wraps(cases.context(train)))
    assert "first at episode 5, step 20" in finding.reason
    assert "without them it runs from 3 to 3.3" in finding.reason


def commanded(wrap, turn=2 * np.pi):
    """Episodes in which an angle goes around; the command is that of the next step."""
    rng = np.random.default_rng(1)
    train = cases.episodes()
    for episode in train:
        angle = rng.uniform(-0.5, 0.5) * turn + 0.01 * turn * np.arange(41)
        wrapped = (angle + turn / 2) % turn - turn / 2
        episode["state"][:, 2] = wrapped[:40]
        # State plus change, which nobody has wrapped, or the wrapped sum.
        target = wrapped[:40] + 0.01 * turn
        episode["action"][:, 0] = (target + turn / 2) % turn - turn / 2 if wrap else target
    return cases.context(train)


@pytest.mark.parametrize("turn, unit", [(2 * np.pi, "radians"), (360.0, "degrees")])
def test_a_command_beyond_the_turn_of_its_state_is_named(turn, unit):
    finding = cases.only(motion.turns_apart(commanded(wrap=False, turn=turn)))
    assert f"action[0] and state[2] are the same angle in {unit}" in finding.reason
    assert "a whole turn apart at" in finding.reason and "wrap the command" in finding.remedy
    assert not motion.turns_apart(commanded(wrap=True, turn=turn))
    assert not motion.turns_apart(cases.context())
