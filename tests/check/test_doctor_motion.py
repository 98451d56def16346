"""What the doctor says of angles, jumps and rotations."""

import numpy as np
import pytest
from support import doctor_cases as cases

from dpjax.check.rules import motion


@pytest.mark.parametrize("turn", [2 * np.pi, 360.0])
def test_an_angle_that_wraps_is_named_with_its_first_jump(turn):
    rng = np.random.default_rng(0)

    def spin(episode):
        angle = (0.02 * turn * np.arange(40) + rng.uniform(0, turn)) % turn
        episode["state"][:, 2] = angle

    finding = cases.only(motion.wraps(cases.spoiled(spin)))
    assert "state[2]" in finding.reason and "episode" in finding.reason
    assert ("radians" in finding.reason) == (turn < 7)


def test_a_position_that_jumps_as_far_as_a_turn_is_no_angle():
    train = cases.walks()
    for episode in train:
        episode["action"][:, 0] = np.linspace(100, 110, 40)
    train[3]["action"][20:, 0] += 300
    assert not motion.wraps(cases.case(train))
    finding = cases.only(motion.jumps(cases.case(train)))
    assert "episode 3, step 19" in finding.reason and "action[0]" in finding.reason


def test_a_gripper_does_not_jump():
    switch = lambda e: e["action"].__setitem__((slice(None), 1), np.arange(40) // 20)
    assert not motion.jumps(cases.spoiled(switch))


def turning(key="pose_quat", flip=False, scale=1.0):
    """Walks with a quaternion that turns about z, its sign changed halfway or not."""
    made = cases.walks()
    for i, episode in enumerate(made):
        half = np.linspace(0.1 * i, 0.1 * i + 0.4, 40)
        q = np.stack([np.cos(half), 0 * half, 0 * half, np.sin(half)], axis=1) * scale
        if flip:
            q[20:] *= -1
        episode[key] = q.astype(np.float32)
        episode["action"] = episode.pop("action")
    return made


def of_quaternions(train, **changes):
    """A case of such walks, held-out ones too."""
    given = cases.config()
    key = next(key for key in train[0] if key not in ("state", "action"))
    given.data.columns[key] = f"observation/{key}"
    given.spaces.update(changes)
    return cases.case(train, val=train[:2], given=given)


def test_a_quaternion_that_flips_is_named_unless_it_is_learned_as_6d():
    made = of_quaternions(turning(key="rotation", flip=True))
    finding = cases.only(motion.quaternions(made))
    assert "rotation[0-3] flips its sign 24 times, first at episode 0, step 19" in finding.reason
    assert "config.spaces.layouts.rotation" in finding.remedy
    layouts = cases.ConfigDict(dict(rotation="quaternion_wxyz"))
    assert not motion.quaternions(of_quaternions(turning("rotation", True), layouts=layouts))


def test_a_quaternion_of_another_length_is_named_by_its_name():
    finding = cases.only(motion.quaternions(of_quaternions(turning(scale=1.2))))
    assert "pose_quat[0-3]" in finding.reason and "0.2" in finding.reason
    assert not motion.quaternions(of_quaternions(turning()))
