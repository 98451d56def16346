"""Rules about the config, on its own and compared with the data."""

import numpy as np

from dpjax.check import context as contexts
from dpjax.check.context import Context, Finding, count, enumerate_some
from dpjax.data.rlds.reader import OF_THE_STEP

# Least share of the image's area in a crop. The paper's crop has 0.77, that of LeRobot #2918 0.02.
CROP_SHARE = 0.5
CROP_SIDE = 0.9  # share of a side that the remedy leaves in the crop; the paper: 84 of 96 px
ASPECT = 1.25  # ratio of the two sides' resize factors; above this, shapes are visibly distorted
WARMUP_SHARE = 0.2  # largest share of the training steps
MAX_LEVELS = 10  # K of MeanFlow; after 2,000 steps the error was 24 px for K = 1, 46 px for K = 100
MIN_PASSES = 3.0  # passes over the data in a whole training; the paper makes 4,500


def refused_config(context: Context) -> list[Finding]:
    """Reports the error with which training would refuse the config.

    Why: keys that contradict each other, such as horizons that do not fit, stop a training before
    its first step.
    Remedy: in the error itself. It names one problem at a time.
    """
    if not context.refusal:
        return []
    remedy = "fix it and check again: training is refused until then, for one problem at a time"
    return [Finding("error", "refused_config", context.refusal.rstrip("."), remedy)]


def unreadable_columns(context: Context) -> list[Finding]:
    """Finds columns that are missing in the data, or neither float numbers nor uint8 images.

    Why: training cannot read them.
    Remedy: another path in config.data.columns, or another conversion of the data.
    """
    findings = []
    for name, path in context.config.data.columns.items():
        # Features are empty when training starts: it has read all columns already.
        if context.features and (why := why_unreadable(name, path, context.features)):
            findings.append(Finding("error", "unreadable_columns", *why))
    return findings


def why_unreadable(name: str, path: str, features) -> tuple[str, str] | None:
    """(reason, remedy) if a column cannot be read, otherwise None.

    path: inside an RLDS step; several paths joined by "+" are read side by side.
    features: as in `Context`.
    """
    key = f"config.data.columns.{name}"
    # The first of the joined paths that is missing or cannot be read is reported.
    for part in path.split("+"):
        if part not in features:
            among = "" if part == path else f" of {path!r}"
            reason = f"{key}: {part!r}{among} is not in the data"
            return reason, f"set {key} to one of {enumerate_some(sorted(features))}"
        # Present, but neither numbers nor an image.
        shape, dtype, readable = features[part]
        if not readable:
            reason = (
                f"{key}={path!r} is {dtype} {list(shape)}, expected float numbers [D] or uint8 "
                "images [H, W, 3]"
            )
            leave = "or list the other columns in config.data.columns, without this one"
            return reason, f"{_conversion(features[part])}; {leave}"
    return None


def resembles_image(shape: tuple) -> bool:
    """Whether the shape of a step is that of an image, with channels first or last."""
    return len(shape) == 3 and 3 in (shape[0], shape[-1])


def _conversion(feature) -> str:
    """A remedy: how to convert a column so that it can be read."""
    shape, dtype, _ = feature
    # Images may need both changes: the axes reordered (PyTorch has channels first), and pixels
    # stored as integers.
    changes = []
    if resembles_image(shape) and shape[-1] != 3:
        changes.append("put the channels last (x.transpose(1, 2, 0))")
    if resembles_image(shape) and np.issubdtype(dtype, np.floating):
        changes.append("store pixels as integers from 0 to 255 (multiply by 255 if they end at 1)")
    if not changes:
        changes.append("cast it to float32 numbers [D]")
    return f"convert the data again: {', '.join(changes)}"


def unused_columns(context: Context) -> list[Finding]:
    """Finds columns of the data that the config does not name.

    Why: a recorded sensor is easily forgotten. A camera that cannot be read is a warning, since
    the policy was probably meant to see it.
    Remedy: name it in config.data.columns, after another conversion if necessary.
    """
    # Joined paths ("a+b") count as their parts.
    used = {part for path in context.config.data.columns.values() for part in path.split("+")}
    # Clocks are no use to a policy, so they are not reported. Their names are "directory: path".
    clocks = {name.rpartition(": ")[2] for name in context.clocks}
    unused = sorted(set(context.features) - used - {*OF_THE_STEP, *clocks})
    findings = []
    others = []
    for path in unused:
        feature = context.features[path]
        # Everything but unreadable images is only listed, in one note.
        if feature.readable or not resembles_image(feature.shape):
            others.append(path)
            continue
        reason = (
            f"{path} looks like a camera, but is {feature.dtype} {list(feature.shape)}: it is "
            "not used"
        )
        findings.append(Finding("warning", "unused_columns", reason, _conversion(feature)))
    if others:
        reason = f"the data also hold {enumerate_some(others)}, which the policy does not see"
        remedy = "nothing, or name it in config.data.columns"
        findings.append(Finding("note", "unused_columns", reason, remedy))
    return findings


def small_crops(context: Context) -> list[Finding]:
    """Finds crops that leave out most of the image.

    Why: the network never sees the rest. In LeRobot's issue 2918, crops of 84 px from images of
    480 x 640 px were 2 % of the area.
    Remedy: resize the images first, so that the crop covers most of them.
    """
    findings = []
    for name, camera in context.config.cameras.items():
        # Images are resized first, then cropped.
        full = camera.get("resize", ()) or camera["size"]
        crop = camera.get("crop", ()) or full
        share = crop[0] * crop[1] / (full[0] * full[1])
        if share >= CROP_SHARE:
            continue
        reason = (
            f"config.cameras.{name}.crop={tuple(crop)} is {share:.1%} of the image of "
            f"{tuple(full)} px: the network never sees the rest"
        )
        # Shrink the image, at the same aspect ratio, until the crop has CROP_SIDE of one side.
        factor = max(inner / outer for inner, outer in zip(crop, full)) / CROP_SIDE
        size = tuple(round(side * factor) for side in full)
        remedy = f"set config.cameras.{name}.resize={size}, so that the crop is most of the image"
        changes = (f"config.cameras.{name}.resize={size}",)
        findings.append(Finding("warning", "small_crops", reason, remedy, changes))
    return findings


def changed_aspect_ratio(context: Context) -> list[Finding]:
    """Finds cameras whose images are resized to another aspect ratio.

    Why: harmless if the robot's images are resized in the same way, but often a mistake.
    Remedy: a size with the camera's aspect ratio.
    """
    findings = []
    for name, camera in context.config.cameras.items():
        if not camera.get("resize", ()):
            continue
        # The factors of height and width; equal ones keep the aspect ratio.
        tall, wide = (after / before for after, before in zip(camera["resize"], camera["size"]))
        ratio = max(tall, wide) / min(tall, wide)
        if ratio > ASPECT:
            reason = (
                f"config.cameras.{name}.resize={tuple(camera['resize'])} squeezes images of "
                f"{tuple(camera['size'])} px by {ratio:.2f}"
            )
            remedy = "harmless if the robot does the same; otherwise keep the ratio of the sides"
            findings.append(Finding("note", "changed_aspect_ratio", reason, remedy))
    return findings


def batch_size(context: Context) -> list[Finding]:
    """Finds a batch with more examples than there are windows, so that it repeats some.

    Remedy: the largest power of two that is not larger.
    """
    size = context.config.train.batch
    windows = context.num_windows  # with mirrored ones
    if size <= windows:
        return []
    reason = f"config.train.batch={size} is more than {count(windows, 'window')}"
    # Rounded down to a power of two; at least 1, whatever the number of windows.
    change = f"config.train.batch={2 ** max(int(np.log2(max(windows, 1))), 0)}"
    return [Finding("warning", "batch_size", reason, f"set {change} or less", (change,))]


def warmup(context: Context) -> list[Finding]:
    """Finds a warm-up of the learning rate that takes much of the training.

    Why: a recipe for a long training keeps its warm-up when only the number of steps is reduced.
    Remedy: a warm-up of a twentieth of the steps, or more steps.
    """
    optim = context.config.optim  # the learning rate rises for `warmup` steps
    total = context.config.train.steps
    # A warm-up of all steps or more is refused: `refused_config` reports it.
    if optim.warmup <= WARMUP_SHARE * total or optim.warmup >= total:
        return []
    reason = f"config.optim.warmup={optim.warmup} is {optim.warmup / total:.0%} of {total} steps"
    change = f"config.optim.warmup={total // 20}"
    remedy = f"set {change}, or raise config.train.steps"
    return [Finding("warning", "warmup", reason, remedy, (change,))]


def few_passes(context: Context) -> list[Finding]:
    """Finds a training that sees each window only a few times.

    Remedy: more steps.
    """
    config = context.config
    passes = config.train.steps * config.train.batch / max(context.num_windows, 1)
    if passes >= MIN_PASSES:
        return []
    windows = count(context.num_windows, "window")
    reason = f"training sees each of {windows} {passes:.2g} times"
    change = f"config.train.steps={-(-100 * context.num_windows // config.train.batch)}"
    remedy = f"set {change}: a diffusion policy needs a hundred passes and more"
    return [Finding("warning", "few_passes", reason, remedy, (change,))]


def pretrained_units(context: Context) -> list[Finding]:
    """Finds ImageNet weights on images that are not normalized as in their training.

    Remedy: normalize images by ImageNet's mean and standard deviation.
    """
    config = context.config
    wrong = [key for key in config.cameras if contexts.normalization(context, key) != "imagenet"]
    if not (wrong and config.encoder.weights):
        return []
    decided = list(dict.fromkeys(contexts.normalization_key(context, key) for key in wrong))
    modes = " and ".join(dict.fromkeys(repr(contexts.normalization(context, key)) for key in wrong))
    reason = f"config.encoder.weights are ImageNet's, but {' and '.join(decided)} is {modes}"
    changes = tuple(f"{key}=imagenet" for key in decided)
    remedy = f"set {', '.join(changes)}"
    return [Finding("warning", "pretrained_units", reason, remedy, changes)]


def meanflow_time_scale(context: Context) -> list[Finding]:
    """Finds MeanFlow with the time scale of a diffusion model.

    Why: the network's time input is K t with K = config.schedule.num_levels, and MeanFlow's loss
    has a derivative by t (Geng et al. 2025), which grows with K (`experiments/samplers`).
    Remedy: K = 1.
    """
    levels = context.config.schedule.num_levels
    if context.config.method != "meanflow" or levels <= MAX_LEVELS:
        return []
    reason = f"config.schedule.num_levels={levels} multiplies MeanFlow's time, and its derivative"
    changes = ("config.schedule.num_levels=1",)
    return [Finding("warning", "meanflow_time_scale", reason, f"set {changes[0]}", changes)]
