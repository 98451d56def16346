"""The run folder: a new one, or one of the same run to go on with; never another's.

In it: config.json, the resolved config and the spec of the data; checkpoints/ (see
training/checkpoint/writer.py); metrics.jsonl and tensorboard/; lock.
"""

import logging
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dpjax.config.keys import flatten
from dpjax.core import spec as spec_lib
from dpjax.core.errors import UserError
from dpjax.runs import config_file
from dpjax.training import checkpoint
from dpjax.training.state import TrainState

# Keys that may differ between a run and its resume: they change no weights, or (the last two)
# as the number of devices does, by the order in which sums are rounded.
FREE_TO_CHANGE = ("log", "val", "eval", "save", "sampler", "data.dir", "data.memory", "data.spill")
FREE_TO_CHANGE += ("distributed", "train.parallel")
# What a start that was killed leaves: no reason to refuse the folder.
LEFT_OVER = {"lock", "config.tmp"}

log = logging.getLogger("dpjax")


def claim(workdir: Path, config: ConfigDict, spec: spec_lib.Spec) -> Any:
    """Makes the folder or accepts it, and locks it; returns the lock, to be closed.

    What is refused is as it was before: nothing in it is touched, and none is made.
    """
    try:
        _changes(workdir, config, spec)
        workdir.mkdir(parents=True, exist_ok=True)
        held = checkpoint.lock(workdir)
        changes = _changes(workdir, config, spec)  # once more: now it is ours
        if changes is None or changes:
            config_file.write_config(workdir, config, spec)
    except OSError as error:
        where = error.filename or workdir
        raise UserError(f"--workdir {workdir}: {where}: {error.strerror}.") from error
    for line in changes or ():
        log.warning(line)
    return held


def _changes(workdir, config, spec):
    """Lines on what is free to change and did; None if no run is there yet."""
    if not (workdir / "config.json").exists():
        if workdir.exists() and {path.name for path in workdir.iterdir()} - LEFT_OVER:
            raise UserError(
                f"--workdir {workdir} has files but no config.json, so it is no run folder: "
                "give a new folder, or that of a run."
            )
        return None
    saved, saved_spec = config_file.read_config(workdir)
    old, new = flatten(saved.to_dict()), flatten(config.to_dict())
    changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    wrong = [
        f"config.{key}: {old.get(key)!r} there, {new.get(key)!r} now"
        for key in changed
        if not _free(key)
    ]
    if saved_spec != spec:
        wrong.append(f"data: fingerprint {saved_spec.data} there, {spec.data} now")
    if wrong:
        raise UserError(
            f"--workdir {workdir} holds a run with another config ({'; '.join(wrong)}): "
            "give the same values, or another --workdir."
        )
    return [
        f"config.{key} is {new.get(key)!r} now, {old.get(key)!r} when the run began"
        for key in changed
    ]


def _free(key):
    return any(key == name or key.startswith(f"{name}.") for name in FREE_TO_CHANGE)


def resume(
    workdir: Path, like: TrainState, num_devices: int, step: int | None = None
) -> tuple[TrainState | None, dict]:
    """The newest good checkpoint (or that of `step`), a tree as `like`, and its meta.

    (None, {}) without any.
    """
    state = checkpoint.restore_latest(workdir, like, step)
    if state is None:
        return None, {}
    meta = checkpoint.read_meta(workdir, int(state.step))
    log.info("going on from step %d of %s", meta["step"], workdir)
    before = meta.get("devices", num_devices)
    if before != num_devices:
        log.warning(
            "%d devices now, %d before: the same batches, sums rounded differently",
            num_devices,
            before,
        )
    return state, meta


def resume_all(
    workdirs: list[Path], like: TrainState, num_devices: int
) -> tuple[list[TrainState | None], dict]:
    """The newest step that all these runs have: their states, and what one meta says.

    A kill between two of their saves leaves some a save behind; the others go back to it.
    """
    found = [resume(workdir, like, num_devices) for workdir in workdirs]
    at = [None if state is None else int(state.step) for state, _ in found]
    if len(set(at)) == 1:
        return [state for state, _ in found], found[0][1]
    if None in at:  # killed before the first save of some
        log.warning("%s has no checkpoint yet: all start anew", workdirs[at.index(None)])
        return [None] * len(workdirs), {}
    shared = set.intersection(*(set(checkpoint.steps(workdir)) for workdir in workdirs))
    if not shared:
        raise UserError(
            f"{workdirs[0].parent}: its runs are at steps {', '.join(map(str, at))} and have none "
            "in common: go on with those behind alone (config.seed, --workdir), or start anew."
        )
    step = max(shared)
    found = [resume(workdir, like, num_devices, step) for workdir in workdirs]
    return [state for state, _ in found], found[0][1]
