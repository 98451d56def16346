"""The run folder: a new one, or that of the same run, to be resumed; never another's.

It holds config.json, the complete config and the spec of the data; checkpoints/ (see
training/checkpoint/writer.py); metrics.jsonl and tensorboard/; lock.
"""

import fnmatch
import logging
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from dpjax.config.keys import flatten
from dpjax.core.errors import UserError
from dpjax.core.spec import Spec
from dpjax.runs import config_file
from dpjax.training import checkpoint
from dpjax.training.state import TrainState

# Keys and sections that may differ between a run and its resume. Most of them change no weights;
# the last three do by rounding alone, as the number of devices does.
FREE_TO_CHANGE = (
    *("log", "val", "eval", "save", "sampler", "data.dir", "data.memory", "data.spill"),
    *("distributed", "train.parallel", "compute.kernels"),
)
# Files (patterns) that an early kill leaves, in this version or before: the folder is still new.
LEFT_OVER = ("lock", "config.tmp", ".config.json.*.tmp")

log = logging.getLogger("dpjax")


def claim(workdir: Path, config: ConfigDict, spec: Spec) -> Any:
    """Makes the folder, or accepts it, and locks it; returns the lock, which is to be closed.

    Raises UserError for a folder that holds something else. It stays as it was then; no folder is
    made.
    """
    try:
        # Before the folder is made or locked: what is refused stays as it was.
        _changes(workdir, config, spec)
        workdir.mkdir(parents=True, exist_ok=True)
        lock = checkpoint.lock(workdir)
        # Once more: another process may have written before the lock was taken.
        changes = _changes(workdir, config, spec)
        if changes is None or changes:
            config_file.write_config(workdir, config, spec)
    except OSError as error:
        where = error.filename or workdir
        raise UserError(f"--workdir {workdir}: {where}: {error.strerror}.") from error
    for line in changes or ():
        log.warning(line)
    return lock


def _changes(workdir: Path, config: ConfigDict, spec: Spec) -> list[str] | None:
    """A line for each key that is free to change and did; None if there is no run yet.

    Raises UserError if another key, or the data, differ from the run's.
    """
    if not (workdir / "config.json").exists():
        if workdir.exists() and not all(map(_is_left_over, workdir.iterdir())):
            raise UserError(
                f"--workdir {workdir} has files but no config.json, so it is not a run folder: "
                "give a new folder, or that of a run."
            )
        return None
    saved, saved_spec = config_file.read_config(workdir)
    # Key by key, those of later versions of dpjax among them (`config_file.complete`).
    old = flatten(saved.to_dict())
    new = flatten(config.to_dict())
    changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    wrong = [
        f"config.{key}: {old.get(key)!r} there, {new.get(key)!r} now"
        for key in changed
        if not _is_free(key)
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


def _is_left_over(path: Path) -> bool:
    """Whether a file may be in the folder of a new run."""
    return any(fnmatch.fnmatchcase(path.name, pattern) for pattern in LEFT_OVER)


def _is_free(key: str) -> bool:
    """Whether a dotted key may differ between a run and its resume."""
    return any(key == name or key.startswith(f"{name}.") for name in FREE_TO_CHANGE)


def resume(
    workdir: Path, like: TrainState, num_devices: int, step: int | None = None
) -> tuple[TrainState | None, dict]:
    """The newest valid checkpoint, or that of `step`, and its metadata; (None, {}) without any.

    like: a state, or its shapes; the tree of what is returned.
    """
    state = checkpoint.restore_latest(workdir, like, step)
    if state is None:
        return None, {}
    meta = checkpoint.read_meta(workdir, int(state.step))
    log.info("resuming from step %d of %s", meta["step"], workdir)
    # Another number of devices adds the same numbers in another order.
    before = meta.get("devices", num_devices)
    if before != num_devices:
        log.warning(
            "%d devices now, %d before: the same batches, sums rounded differently",
            num_devices,
            before,
        )
    return state, meta
