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
