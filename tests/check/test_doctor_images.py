"""What the doctor says of frames."""

import numpy as np
import pytest
from support import doctor_cases as cases

from dpjax.check.rules import images
from dpjax.data.rlds.reader import Feature

FLOAT, BYTE = np.dtype(np.float32), np.dtype(np.uint8)


def noise(count=12, seed=0, high=256):
    """Pairs of frames [n, 2, 8, 8, 3]."""
    return np.random.default_rng(seed).integers(0, high, (count, 2, 8, 8, 3), np.uint8)


@pytest.mark.parametrize("rule", images.RULES)
def test_good_frames_are_passed_over(rule):
    made = cases.camera(cases.camera(cases.case(), noise()), noise(seed=1), "wrist")
    assert not rule(made)


def test_a_camera_of_another_size_is_an_error_with_the_size():
    given = cases.config()
    given.data.columns.cam = "observation/cam"
    given.cameras.cam = cases.ConfigDict(dict(size=(96, 96), resize=(), crop=()))
    features = {"observation/cam": Feature((64, 80, 3), BYTE)}
    made = cases.case()._replace(config=given, features=features)
    finding = cases.only(images.wrong_images(made))
    assert finding.severity == "error" and "config.cameras.cam.size=(64, 80)" in finding.remedy
    made = made._replace(features={"observation/cam": Feature((96, 96, 3), BYTE)})
    assert not images.wrong_images(made)


def test_pixels_that_end_at_one_are_an_error():
    finding = cases.only(images.unscaled(cases.camera(cases.case(), noise(high=2))))
    assert finding.severity == "error" and "255" in finding.remedy


def test_black_frames_are_counted_and_the_first_one_is_named():
    pixels = noise()
    pixels[3:5] = 0
    finding = cases.only(images.blank(cases.camera(cases.case(), pixels)))
    assert "2 of 12 frames of cam" in finding.reason and "episode 0, step 6" in finding.reason


def test_a_camera_that_is_all_black_is_named():
    finding = cases.only(images.blank(cases.camera(cases.case(), 0 * noise())))
    assert "12 of 12" in finding.reason


def test_a_dark_camera_is_named():
    finding = cases.only(images.blank(cases.camera(cases.case(), noise(high=25))))
    assert "dark" in finding.reason


def test_a_frozen_camera_is_named_only_where_the_robot_moves():
    pixels = noise()
    pixels[:, 1] = pixels[:, 0]
    made = cases.camera(cases.case(), pixels)
    assert "100% of cam's frames" in cases.only(images.frozen(made)).reason
    rest = lambda e: [x.__setitem__(slice(None), 1) for x in e.values()]
    assert not images.frozen(cases.camera(cases.spoiled(rest), pixels))


def test_the_same_camera_twice_is_named():
    made = cases.camera(cases.camera(cases.case(), noise()), noise(), "wrist")
    assert "cam and wrist" in cases.only(images.twice(made)).reason
