"""Rules about cameras, applied to a sample of their frames (`collect.FRAMES` per camera)."""

import itertools

import numpy as np

from dpjax.check.context import Context, Finding, describe_step
from dpjax.data import checks

PLAIN = 3.0  # standard deviation of the pixels, of 255: a lens cap, or a frame never written
DARK = 20.0  # mean of the pixels, of 255
FROZEN_SHARE = 0.5  # of the frames: so many equal the next one although the robot moves
MOTION = 2e-3  # of a dim's range per step: more counts as motion
MIN_PAIRS = 8  # pairs of frames of a moving robot that are needed to call a camera frozen


def image_size(context: Context) -> list[Finding]:
    """Finds cameras of the config whose images have another size in the data.

    Why: training refuses them, since crops are given in pixels of that size.
    Remedy: the size in the data.
    """
    findings = []
    for name, camera in context.config.cameras.items():
        feature = context.features.get(context.config.data.columns.get(name, ""))
        # `unreadable_columns` reports columns that are missing or are not images.
        if feature is None or None in feature.shape:
            continue
        if not checks.is_image(feature.shape, feature.dtype):
            continue
        actual = tuple(feature.shape[:2])
        if actual != tuple(camera["size"]):
            expected = tuple(camera["size"])
            reason = f"config.cameras.{name}.size={expected}, but the images are {actual}"
            remedy = f"set config.cameras.{name}.size={actual}, and a crop that fits"
            findings.append(Finding("error", "image_size", reason, remedy))
    return findings


def unscaled_pixels(context: Context) -> list[Finding]:
    """Finds images whose pixels end at 1.

    Why: floats from 0 to 1 were cast to integers, and all but the white pixels became 0.
    Remedy: convert the data again.
    """
    findings = []
    for name, (_, pixels) in context.frames.items():
        # A camera that is black throughout is not this mistake: see `blank_frames`.
        if 0 < pixels.max() <= 1:
            reason = f"no pixel of {name} is above 1 in the {len(pixels)} frames looked at"
            remedy = "convert the data again and multiply by 255 before the cast"
            findings.append(Finding("error", "unscaled_pixels", reason, remedy))
    return findings


def blank_frames(context: Context) -> list[Finding]:
    """Finds frames of one colour, and cameras that are nearly black.

    Why: a lens cap, a frame that was never written, an exposure that the robot will not have.
    Remedy: look at the recording.
    """
    findings = []
    for name, (steps, pixels) in context.frames.items():
        # The first frame of each pair; the second one is there for `frozen_camera`.
        now = pixels[:, 0].reshape(len(pixels), -1)  # [n, H * W * 3]
        if now.max() == 1:  # `unscaled_pixels` reports it
            continue
        plain = now.std(1) < PLAIN  # bool [n]
        if plain.any():
            first = describe_step(context, steps[np.argmax(plain)])
            reason = (
                f"{plain.sum()} of {len(now)} frames of {name} that were looked at are one "
                f"colour, first {first}"
            )
            remedy = "look at the recording there; leave such episodes out"
            findings.append(Finding("warning", "blank_frames", reason, remedy))
        elif now.mean() < DARK:
            reason = f"{name} is dark: its pixels are {now.mean():.0f} of 255 on average"
            remedy = "check the exposure, and that the robot's camera delivers the same"
            findings.append(Finding("warning", "blank_frames", reason, remedy))
    return findings


def frozen_camera(context: Context) -> list[Finding]:
    """Finds cameras whose frames do not change although the robot moves.

    Why: a camera that was recorded at a lower rate than the steps, or hung.
    Remedy: check the rate of the recording.
    """
    if not context.frames:
        return []
    # Whether any number changes from step t to the next one.
    moving = np.zeros(context.train.ends[-1], bool)
    for x in context.numbers.values():
        moving[:-1] |= (np.abs(np.diff(x, axis=0)) > MOTION * np.ptp(x, axis=0)).any(1)
    findings = []
    for name, (steps, pixels) in context.frames.items():
        # Frames may well be equal while the robot rests.
        pairs = pixels[moving[steps]]
        if len(pairs) < MIN_PAIRS:
            continue
        same = (pairs[:, 0] == pairs[:, 1]).reshape(len(pairs), -1).all(1).mean()  # share
        if same > FROZEN_SHARE:
            reason = f"{same:.0%} of {name}'s frames equal the next one, though the robot moves"
            remedy = "check that the camera was recorded at the rate of the steps"
            findings.append(Finding("warning", "frozen_camera", reason, remedy))
    return findings


def duplicate_cameras(context: Context) -> list[Finding]:
    """Finds two cameras with the same pixels.

    Why: one of them was probably meant to be another camera; the network gains nothing.
    Remedy: check the two columns.
    """
    findings = []
    # All cameras are sampled at the same steps, so equal arrays are equal frames.
    for (a, (_, x)), (b, (_, y)) in itertools.combinations(context.frames.items(), 2):
        if x.shape == y.shape and np.array_equal(x, y):
            reason = f"{a} and {b} show the same, pixel by pixel"
            remedy = f"check config.data.columns.{a} and .{b}, and the recording"
            findings.append(Finding("warning", "duplicate_cameras", reason, remedy))
    return findings
