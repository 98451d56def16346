"""What the check finds about camera frames."""

import numpy as np
import pytest
from support import check_cases as cases

from dpjax.check import rules
from dpjax.check.rules import images
from dpjax.data.rlds.reader import Feature

BYTE = np.dtype(np.uint8)
IMAGE_RULES = [rule for rule in rules.RULES if rule.__module__ == images.__name__]


def noise(count=12, seed=0, high=256):
    """Pairs of frames [n, 2, 8, 8, 3]."""
    return np.random.default_rng(seed).integers(0, high, (count, 2, 8, 8, 3), np.uint8)


@pytest.mark.parametrize("rule", IMAGE_RULES)
def test_good_frames_have_no_findings(rule):
    context = cases.with_camera(cases.context(), noise())
    assert not rule(cases.with_camera(context, noise(seed=1), "wrist"))


def test_a_camera_of_another_size_is_an_error_that_gives_the_size():
    config = cases.make_config()
    config.data.columns.cam = "observation/cam"
    config.cameras.cam = cases.ConfigDict(dict(size=(96, 96), resize=(), crop=()))
    features = {"observation/cam": Feature((64, 80, 3), BYTE)}
    context = cases.context()._replace(config=config, features=features)
    finding = cases.only(images.image_size(context))
    assert finding.severity == "error" and "config.cameras.cam.size=(64, 80)" in finding.remedy
    context = context._replace(features={"observation/cam": Feature((96, 96, 3), BYTE)})
    assert not images.image_size(context)


def test_pixels_that_end_at_one_are_an_error():
    context = cases.with_camera(cases.context(), noise(high=2))
    finding = cases.only(images.unscaled_pixels(context))
    assert finding.severity == "error" and "255" in finding.remedy


def test_black_frames_are_counted_and_the_first_one_is_named():
    pixels = noise()
    pixels[3:5] = 0
    finding = cases.only(images.blank_frames(cases.with_camera(cases.context(), pixels)))
    assert "2 of 12 frames of cam" in finding.reason and "episode 0, step 6" in finding.reason


def test_a_camera_that_is_all_black_is_named():
    context = cases.with_camera(cases.context(), 0 * noise())
    assert "12 of 12" in cases.only(images.blank_frames(context)).reason


def test_a_dark_camera_is_named():
    context = cases.with_camera(cases.context(), noise(high=25))
    assert "dark" in cases.only(images.blank_frames(context)).reason


def test_a_frozen_camera_is_named_only_if_the_robot_moves():
    pixels = noise()
    pixels[:, 1] = pixels[:, 0]
    context = cases.with_camera(cases.context(), pixels)
    assert "100% of cam's frames" in cases.only(images.frozen_camera(context)).reason

    def rest(episode):
        for x in episode.values():
            x[:] = 1

    assert not images.frozen_camera(cases.with_camera(cases.changed(rest), pixels))


def test_one_camera_under_two_names_is_named():
    context = cases.with_camera(cases.context(), noise())
    context = cases.with_camera(context, noise(), "wrist")
    assert "cam and wrist" in cases.only(images.duplicate_cameras(context)).reason
