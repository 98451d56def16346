"""What the check finds about camera frames."""

import numpy as np
import pytest
from support import check_cases as cases

from dpjax.check import looks, rules, summary
from dpjax.check.rules import images
from dpjax.data import frames
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


def filmed(change, count=200):
    """The context of many episodes with a camera, after `change(frames [E, T, 8, 8, 3])`."""
    context = cases.context(cases.episodes(count, length=12), val=cases.episodes(2, length=12))
    pixels = np.random.default_rng(0).integers(60, 256, (count + 2, 12, 8, 8, 3), np.uint8)
    change(pixels)
    column = frames.Frames(
        pixels.reshape(-1, 8, 8, 3), np.arange(pixels[..., 0, 0, 0].size), np.zeros(0, bool), ""
    )
    column = column._replace(mirrored=np.zeros(len(column.indices), bool))
    steps = np.arange(count * 12)
    train = context.train._replace(columns={**context.train.columns, "cam": column.take(steps)})
    rest = np.arange(count * 12, (count + 2) * 12)
    val = context.val._replace(columns={**context.val.columns, "cam": column.take(rest)})
    return context._replace(
        train=train,
        val=val,
        frames=looks.sample_pairs(train),
        looks=looks.look_at_episodes(train, val),
    )


def test_one_black_episode_among_many_is_named():
    def blacken(pixels):
        pixels[123] = 0
        pixels[201, 6:] = 7  # a held-out one, from its middle on

    finding = cases.only(images.blank_frames(filmed(blacken)))
    assert "in 2 of 202 episodes (episode 123, episode 201), first episode 123" in finding.reason


def test_one_dark_episode_among_bright_ones_is_named():
    def darken(pixels):
        pixels[45] //= 16

    assert "(episode 45)" in cases.only(images.blank_frames(filmed(darken))).reason


def test_one_frozen_episode_is_named_only_if_the_robot_moves():
    def freeze(pixels):
        pixels[77] = pixels[77, :1]

    context = filmed(freeze)
    finding = cases.only(images.frozen_camera(context))
    assert "in 1 of 202 episodes (episode 77)" in finding.reason
    assert not images.blank_frames(context)
    for x in context.numbers.values():
        x[77 * 12 : 78 * 12] = x[77 * 12]
    context = context._replace(looks=looks.look_at_episodes(context.train, context.val))
    assert not images.frozen_camera(context)


def test_the_number_of_frames_that_are_decoded_is_bounded_and_said(monkeypatch):
    context = filmed(lambda pixels: None)
    assert not images.blank_frames(context) and not images.frozen_camera(context)
    assert "frames decoded, 3 per episode: 606 of cam" in summary.overview(context)
    monkeypatch.setattr(looks, "MAX_EPISODES", 50)
    few = looks.look_at_episodes(context.train, context.val)["cam"]
    assert few.steps.shape == (41, 3) and few.episodes[-1] == 200
