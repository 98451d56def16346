"""Rules about the config, alone and with what the data are."""

import numpy as np

from dpjax.check.context import Case, Finding, counted, listed
from dpjax.data.rlds.reader import OF_THE_STEP

CROP = 0.5  # share of the frame's area: the paper's crop keeps .77, LeRobot #2918's .02
CROP_SIDE = 0.9  # of the image's shorter side, for the remedy; the paper: 84 of 96 px
SQUEEZE = 1.25  # one side resized so much more than the other: circles become ellipses
WARMUP = 0.2  # share of the training spent on it
LEVELS = 10  # K of MeanFlow: with 1 its plans were 24 px off after 2,000 steps, with 100 46
EPOCHS = 3.0  # times that a window is seen in all of the training; the paper: 4,500


def refusal(case: Case) -> list[Finding]:
    """What training would refuse: horizons that do not fit, gaussian actions that are cut, ….."""
    if not case.refusal:
        return []
    remedy = "do as it says, for training is refused; then check again: it names one at a time"
    return [Finding("error", "refusal", case.refusal.rstrip("."), remedy)]


def unreadable_columns(case: Case) -> list[Finding]:
    """Columns that are missing in the data, or are neither float numbers nor uint8 images."""
    found = []
    for name, path in case.config.data.columns.items():
        if case.features and (why := why_unreadable(name, path, case.features)):
            found.append(Finding("error", "unreadable_columns", *why))
    return found


def why_unreadable(name: str, path: str, features) -> tuple[str, str] | None:
    """(reason, remedy) of a column that cannot be read; features: as `Case` has them.

    path: inside a step, or several with a "+" between.
    """
    where = f"config.data.columns.{name}"
    for part in path.split("+"):
        if part not in features:
            of_it = "" if part == path else f" of {path!r}"
            reason = f"{where}: {part!r}{of_it} is not in the data"
            return reason, f"set {where} to what they have: {listed(sorted(features))}"
        shape, dtype, readable = features[part]
        if not readable:
            got = f"{dtype} {list(shape)}"
            reason = f"{where}={path!r} is {got}, expected numbers [D] or uint8 [H, W, 3]"
            leave = "or name the other columns, without it, in config.data.columns"
            return reason, f"{_conversion(features[part])}; {leave}"
    return None


def like_image(shape: tuple) -> bool:
    """Whether a step of that shape looks like an image, channels first or last."""
    return len(shape) == 3 and 3 in (shape[0], shape[-1])


def _conversion(feature):
    """What to do with a column that cannot be read."""
    shape, dtype, _ = feature
    todo = []
    if like_image(shape) and shape[-1] != 3:
        todo.append("put the channels last (x.transpose(1, 2, 0))")
    if like_image(shape) and np.issubdtype(dtype, np.floating):
        todo.append("make the pixels whole numbers from 0 to 255 (times 255 where they end at 1)")
    if not todo:
        todo.append("cast it to float32 numbers [D]")
    return f"convert the data again: {', '.join(todo)}"


def unused(case: Case) -> list[Finding]:
    """What the data keep and the config does not name."""
    used = {part for path in case.config.data.columns.values() for part in path.split("+")}
    times = {path.rpartition(": ")[2] for path in case.clocks}  # of "directory: path"
    left = sorted(set(case.features) - used - {*OF_THE_STEP, *times})
    lost = [path for path, x in case.features.items() if like_image(x.shape) and not x.readable]
    lost = [path for path in lost if path in left]
    found = []
    for path in lost:
        shape, dtype, _ = case.features[path]
        reason = f"{path} looks like a camera's, but is {dtype} {list(shape)}: it is not used"
        found.append(Finding("warning", "unused", reason, _conversion(case.features[path])))
    if others := [path for path in left if path not in lost]:
        reason = f"the data have {listed(others)} too, which the policy does not see"
        remedy = "nothing, or name it in config.data.columns"
        found.append(Finding("note", "unused", reason, remedy))
    return found


def crops(case: Case) -> list[Finding]:
    """Crops that leave most of the image out (LeRobot's issue 2918)."""
    found = []
    for name, camera in case.config.cameras.items():
        full = camera.get("resize", ()) or camera["size"]
        crop = camera.get("crop", ()) or full
        share = crop[0] * crop[1] / (full[0] * full[1])
        if share >= CROP:
            continue
        reason = (
            f"config.cameras.{name}.crop={tuple(crop)} is {share:.1%} of the image of "
            f"{tuple(full)} px: the network never sees the rest"
        )
        factor = max(inner / outer for inner, outer in zip(crop, full)) / CROP_SIDE
        size = tuple(round(side * factor) for side in full)
        remedy = f"config.cameras.{name}.resize={size}, so that the crop is most of the image"
        found.append(Finding("warning", "crops", reason, remedy))
    return found


def squeezed(case: Case) -> list[Finding]:
    """Images that are resized to another shape."""
    found = []
    for name, camera in case.config.cameras.items():
        if not camera.get("resize", ()):
            continue
        tall, wide = (after / before for after, before in zip(camera["resize"], camera["size"]))
        if max(tall, wide) / min(tall, wide) > SQUEEZE:
            reason = (
                f"config.cameras.{name}.resize={tuple(camera['resize'])} squeezes images of "
                f"{tuple(camera['size'])} px by {max(tall, wide) / min(tall, wide):.2f}"
            )
            remedy = "harmless where it is so on the robot; else keep the ratio of the sides"
            found.append(Finding("note", "squeezed", reason, remedy))
    return found


def batch(case: Case) -> list[Finding]:
    """A batch in which windows are repeated."""
    size = case.config.train.batch
    if size <= case.windows:
        return []
    reason = f"config.train.batch={size} is more than {counted(case.windows, 'window')}"
    remedy = f"config.train.batch={2 ** max(int(np.log2(max(case.windows, 1))), 0)} or less"
    return [Finding("warning", "batch", reason, remedy)]


def warmup(case: Case) -> list[Finding]:
    """A warm-up that is much of the training, or longer."""
    optim, total = case.config.optim, case.config.train.steps
    if optim.warmup <= WARMUP * total or optim.warmup >= total:  # `refusal` says the latter
        return []
    reason = f"config.optim.warmup={optim.warmup} is {optim.warmup / total:.0%} of {total} steps"
    remedy = f"config.optim.warmup={total // 20}, or a longer config.train.steps"
    return [Finding("warning", "warmup", reason, remedy)]


def epochs(case: Case) -> list[Finding]:
    """A training that hardly sees the data."""
    seen = case.config.train.steps * case.config.train.batch / max(case.windows, 1)
    if seen >= EPOCHS:
        return []
    reason = f"training sees each of {counted(case.windows, 'window')} {seen:.2g} times"
    remedy = "a larger config.train.steps; a diffusion policy wants a hundred passes and more"
    return [Finding("warning", "epochs", reason, remedy)]


def pretrained(case: Case) -> list[Finding]:
    """ImageNet's weights on images in other units than they were trained in."""
    config = case.config
    if not (config.cameras and config.encoder.weights and config.normalize.image != "imagenet"):
        return []
    given = config.normalize.image
    reason = f"config.encoder.weights are ImageNet's, config.normalize.image is {given!r}"
    remedy = "config.normalize.image=imagenet"
    return [Finding("warning", "pretrained", reason, remedy)]


def levels(case: Case) -> list[Finding]:
    """MeanFlow that is told time as another method's: its derivative is as much steeper."""
    given = case.config.schedule.num_levels
    if case.config.method != "meanflow" or given <= LEVELS:
        return []
    reason = f"config.schedule.num_levels={given} is also what MeanFlow's time is multiplied by"
    return [Finding("warning", "levels", reason, "config.schedule.num_levels=1")]


RULES = (
    *(refusal, unreadable_columns, unused, crops, squeezed, batch, warmup, epochs),
    *(pretrained, levels),
)
