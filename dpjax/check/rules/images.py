"""Rules about what cameras deliver, on a sample of their frames (`read.FRAMES` a camera)."""

import itertools

import numpy as np

from dpjax.check.context import Case, Finding, place
from dpjax.data import checks

PLAIN = 3.0  # deviation of the pixels, of 255: a lens cap, a frame that was not filled
DARK = 20.0  # mean of the pixels, of 255
FROZEN = 0.5  # share of the frames that equal the next one, though the robot moved
STILL = 2e-3  # of a dim's range a step: more is motion
ENOUGH = 8  # frames of a moving robot, below which nothing is said


def wrong_images(case: Case) -> list[Finding]:
    """Cameras of the config whose columns are no images, or of another size."""
    found = []
    for name, camera in case.config.cameras.items():
        feature = case.features.get(case.config.data.columns.get(name, ""))
        if feature is None or None in feature[0] or not checks.is_image(*feature[:2]):
            continue  # `unreadable_columns` says it
        if tuple(feature[0][:2]) != tuple(camera["size"]):
            got = tuple(feature[0][:2])
            reason = f"config.cameras.{name}.size={tuple(camera['size'])}, but the images are {got}"
            remedy = f"config.cameras.{name}.size={got}, and a crop that fits"
            found.append(Finding("error", "wrong_images", reason, remedy))
    return found


def unscaled(case: Case) -> list[Finding]:
    """Pixels that end at 1: floats from 0 to 1 that were cast to whole numbers."""
    found = []
    for name, (_, pixels) in case.frames.items():
        if 0 < pixels.max() <= 1:
            reason = f"no pixel of {name} is above 1, in {len(pixels)} frames that were looked at"
            remedy = "convert the data again, times 255 before the cast: what is left is black"
            found.append(Finding("error", "unscaled", reason, remedy))
    return found


def blank(case: Case) -> list[Finding]:
    """Frames without a picture."""
    found = []
    for name, (rows, pixels) in case.frames.items():
        now = pixels[:, 0].reshape(len(pixels), -1)
        plain = now.std(1) < PLAIN
        if now.max() == 1:  # `unscaled` says it
            continue
        if plain.any():
            reason = (
                f"{plain.sum()} of {len(now)} frames of {name} that were looked at are one colour, "
                f"first {place(case, rows[np.argmax(plain)])}"
            )
            remedy = "look at the recording there; leave such episodes out"
            found.append(Finding("warning", "blank", reason, remedy))
        elif now.mean() < DARK:
            reason = f"{name} is dark: its pixels are {now.mean():.0f} of 255 on average"
            remedy = "check the exposure, and that the robot's camera delivers the same"
            found.append(Finding("warning", "blank", reason, remedy))
    return found


def frozen(case: Case) -> list[Finding]:
    """Cameras that stand still while the robot moves."""
    if not case.frames:
        return []
    found = []
    moving = np.zeros(case.train.ends[-1], bool)
    for x in case.numbers.values():
        moving[:-1] |= (np.abs(np.diff(x, axis=0)) > STILL * np.ptp(x, axis=0)).any(1)
    for name, (rows, pixels) in case.frames.items():
        pairs = pixels[moving[rows]]
        if len(pairs) < ENOUGH:
            continue
        same = (pairs[:, 0] == pairs[:, 1]).reshape(len(pairs), -1).all(1).mean()
        if same > FROZEN:
            reason = f"{same:.0%} of {name}'s frames equal the next one, though the robot moves"
            remedy = "check that the camera was recorded at the rate of the steps"
            found.append(Finding("warning", "frozen", reason, remedy))
    return found


def twice(case: Case) -> list[Finding]:
    """Two cameras that are one."""
    found = []
    for (a, (_, x)), (b, (_, y)) in itertools.combinations(case.frames.items(), 2):
        if x.shape == y.shape and np.array_equal(x, y):
            reason = f"{a} and {b} show the same, pixel by pixel"
            remedy = f"check config.data.columns.{a} and .{b}, and the recording"
            found.append(Finding("warning", "twice", reason, remedy))
    return found


RULES = (wrong_images, unscaled, blank, frozen, twice)
