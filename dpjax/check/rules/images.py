"""Rules about cameras. They examine a sample of all frames, and a few frames of every episode."""

import itertools

import numpy as np

from dpjax.check.context import Context, Finding, count, describe_step, enumerate_some, leave_out
from dpjax.data import checks

# Standard deviation of the pixels (0 to 255) below which a frame is plain: a lens cap, or a frame
# that was never written.
PLAIN = 3.0
DARK = 20.0  # mean of the pixels (0 to 255) below which a camera is dark
FROZEN_SHARE = 0.5  # share of frames that equal the next one, while the robot moves
MOTION = 2e-3  # share of a dim's range per step; more counts as motion
MIN_PAIRS = 8  # with fewer pairs of frames of a moving robot, a camera is not called frozen


def image_size(context: Context) -> list[Finding]:
    """Finds cameras of the config whose images have another size in the data.

    Why: training refuses them, since crops are set in pixels of that size.
    Remedy: set the size that the images have.
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
            changes = (f"config.cameras.{name}.size={actual}",)
            findings.append(Finding("error", "image_size", reason, remedy, changes))
    return findings


def unscaled_pixels(context: Context) -> list[Finding]:
    """Finds images whose pixels end at 1.

    Why: floats from 0 to 1 were cast to integers, so that all but the white pixels became 0.
    Remedy: convert the data again.
    """
    findings = []
    for name, (_, pixels) in context.frames.items():
        # All pixels 0 is another fault, a black camera, which `blank_frames` reports.
        if 0 < pixels.max() <= 1:
            reason = f"no pixel of {name} is above 1 in the {len(pixels)} frames looked at"
            remedy = "convert the data again and multiply by 255 before the cast"
            findings.append(Finding("error", "unscaled_pixels", reason, remedy))
    return findings


def blank_frames(context: Context) -> list[Finding]:
    """Finds frames of one colour, and cameras that are nearly black, in a single episode too.

    Why: a lens cap, a frame that was never written, or another exposure than on the robot.
    Remedy: look at the recording.
    """
    findings = []
    for name, (steps, pixels) in context.frames.items():
        # Only the first frame of each pair is used; the second one is for `frozen_camera`.
        now = pixels[:, 0].reshape(len(pixels), -1)  # [n, H * W * 3]
        if now.max() == 1:  # `unscaled_pixels` reports it
            continue
        plain = now.std(1) < PLAIN  # bool [n]
        leave, changes, reason = "leave such episodes out", (), ""
        episodes, place = _blank_episodes(context, name)
        if len(episodes):
            # One look per episode says more than a sample of all frames.
            leave, changes = leave_out(context, episodes)
            reason = (
                f"{name} shows one colour or black in {len(episodes)} of "
                f"{count(len(context.looks[name].episodes), 'episode')} "
                f"({enumerate_some([context.labels[e] for e in episodes])}), first {place}"
            )
        elif plain.any():
            first = describe_step(context, steps[np.argmax(plain)])
            reason = (
                f"{plain.sum()} of {len(now)} frames of {name} that were looked at are one "
                f"colour, first {first}"
            )
        if reason:
            remedy = f"look at the recording there, and {leave}"
            findings.append(Finding("warning", "blank_frames", reason, remedy, changes))
        elif now.mean() < DARK:
            reason = f"{name} is dark: its pixels are {now.mean():.0f} of 255 on average"
            remedy = "check the exposure, and that the robot's camera delivers the same"
            findings.append(Finding("warning", "blank_frames", reason, remedy))
    return findings


def _blank_episodes(context, name):
    """(episodes with frames of one colour or black ones, where the first such frame is)."""
    if name not in context.looks:
        return [], ""
    look = context.looks[name]
    blank = look.deviation < PLAIN  # bool [n, K]
    # A dark episode is one among bright ones; a camera that is dark everywhere is another finding.
    if np.median(look.mean) >= 2 * DARK:
        blank |= look.mean < DARK
    rows = np.flatnonzero(blank.any(1))
    if not len(rows):
        return [], ""
    first = rows[0]
    step = look.steps[first, np.argmax(blank[first])]
    return look.episodes[rows], f"{context.labels[look.episodes[first]]}, step {step}"


def frozen_camera(context: Context) -> list[Finding]:
    """Finds cameras whose frames do not change although the robot moves.

    Why: the camera hung, or was recorded at a lower rate than the steps.
    Remedy: check the rate of the recording.
    """
    if not context.frames:
        return []
    # bool [N]: whether any number changes noticeably from a step to the next one.
    moving = np.zeros(context.train.ends[-1], bool)
    for x in context.numbers.values():
        moving[:-1] |= (np.abs(np.diff(x, axis=0)) > MOTION * np.ptp(x, axis=0)).any(1)
    findings = []
    for name, (steps, pixels) in context.frames.items():
        # Only pairs during which the robot moves: frames may be equal while it rests.
        pairs = pixels[moving[steps]]
        same = 0.0
        if len(pairs) >= MIN_PAIRS:
            same = (pairs[:, 0] == pairs[:, 1]).reshape(len(pairs), -1).all(1).mean()  # share
        # Frames of one colour are equal too: `blank_frames` reports them.
        look = context.looks.get(name)
        frozen = look.same & look.moved & (look.deviation >= PLAIN).all(1) if look else np.zeros(0)
        if same > FROZEN_SHARE:
            reason = f"{same:.0%} of {name}'s frames equal the next one, though the robot moves"
            remedy = "check that the camera was recorded at the rate of the steps"
            findings.append(Finding("warning", "frozen_camera", reason, remedy))
        elif frozen.any():
            reason = (
                f"{name} shows the same frame from the first to the last step, though the robot "
                f"moves, in {frozen.sum()} of {count(len(frozen), 'episode')} "
                f"({enumerate_some([context.labels[e] for e in look.episodes[frozen]])})"
            )
            leave, changes = leave_out(context, look.episodes[frozen])
            remedy = f"look at the recordings, and {leave}"
            findings.append(Finding("warning", "frozen_camera", reason, remedy, changes))
    return findings


def duplicate_cameras(context: Context) -> list[Finding]:
    """Finds two cameras with the same pixels.

    Why: one of them was probably meant to be another camera; the network learns nothing from it.
    Remedy: check the two columns.
    """
    findings = []
    # All cameras are sampled at the same steps, so equal arrays are equal frames.
    for (a, (_, x)), (b, (_, y)) in itertools.combinations(context.frames.items(), 2):
        if x.shape == y.shape and np.array_equal(x, y):
            reason = f"{a} and {b} have the same pixels"
            remedy = f"check config.data.columns.{a} and .{b}, and the recording"
            findings.append(Finding("warning", "duplicate_cameras", reason, remedy))
    return findings
