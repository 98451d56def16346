"""Creates the run folder of a training, or resumes from it if it holds the same run.

A run folder contains config.json (the complete config and the spec of the data), checkpoints/ (see
training/checkpoint/writer.py), metrics.jsonl, tensorboard/, and the file `lock`.
"""

from collections.abc import Mapping
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

# Keys and sections that may change when a run is resumed. Most of them do not affect the weights.
# The last three only change the rounding, like another number of devices. A run keeps the units of
# its normalizer whatever `min_range` is, and runs of older versions have another default.
FREE_TO_CHANGE = (
    "normalize.min_range",
    *("log", "val", "eval", "save", "sampler", "data.dir", "data.memory", "data.spill"),
    *("distributed", "train.parallel", "compute.kernels"),
)
# Patterns of the files that a kill can leave before config.json exists, in this version or an
# older one. A folder with nothing else counts as new.
LEFT_OVER = ("lock", "config.tmp", ".config.json.*.tmp")

log = logging.getLogger("dpjax")


def begun(workdir: Path) -> ConfigDict | None:
    """The config of the run in a folder, or of the first of its runs side by side; None if new."""
    for path in (workdir / "config.json", *sorted(workdir.glob("seed_*/config.json"))):
        if path.is_file():
            return config_file.read_config(path.parent)[0]
    return None


def claim(workdir: Path, config: ConfigDict, spec: Spec) -> Any:
    """Creates or accepts the run folder, and locks it; returns the lock for the caller to close.

    Raises UserError, and changes nothing, if the folder holds something else.
    """
    try:
        # Checked before the folder is created or locked, so that an error changes nothing.
        _changes(workdir, config, spec)
        workdir.mkdir(parents=True, exist_ok=True)
        lock = checkpoint.lock(workdir)
        # Checked again, since another process may have written before the lock was taken.
        changes = _changes(workdir, config, spec)
        # A new run, or another config than in the last start.
        if changes is None or changes:
            config_file.write_config(workdir, config, spec)
    except OSError as error:
        where = error.filename or workdir
        raise UserError(f"--workdir {workdir}: {where}: {error.strerror}.") from error
    # Logged after the lock is taken: a run that another process holds says nothing else.
    for line in changes or ():
        log.warning(line)
    return lock


def _changes(workdir: Path, config: ConfigDict, spec: Spec) -> list[str] | None:
    """A text for each key whose value changed; None if the folder has no run yet.

    Raises UserError if a key that must not change, or the data, differs from that of the run.
    """
    # 1. A new run: no folder, or nothing of value in it.
    if not (workdir / "config.json").exists():
        if workdir.exists() and not all(map(_is_left_over, workdir.iterdir())):
            raise UserError(
                f"--workdir {workdir} has files but no config.json, so it is not a run folder: "
                "give a new folder, or that of a run."
            )
        return None
    saved, saved_spec = config_file.read_config(workdir)
    # 2. The keys whose values differ. `read_config` has added the keys of later versions.
    old = flatten(saved.to_dict())
    new = flatten(config.to_dict())
    changed = [key for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    # 3. An error lists all that must not differ.
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
            f"give the same values, or another --workdir.{_how_to_go_on(workdir, old, new)}"
        )
    return [
        f"config.{key} is {new.get(key)!r} now, {old.get(key)!r} when the run began"
        for key in changed
    ]


def _how_to_go_on(workdir: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What to do if the difference is that more steps are asked for; "" otherwise.

    old, new: the flat configs. More steps are another run, not a longer one: the learning rate
    falls over config.train.steps, so the steps that are done were done at another rate.
    """
    if new["train.steps"] <= old["train.steps"] or not checkpoint.steps(workdir):
        return ""
    return (
        f" To train its weights further: --config.train.init_from={workdir} and another --workdir."
    )


def _is_left_over(path: Path) -> bool:
    """Whether a file in the folder may remain from a start that was killed early."""
    return any(fnmatch.fnmatchcase(path.name, pattern) for pattern in LEFT_OVER)


def _is_free(key: str) -> bool:
    """Whether a dotted key may change when a run is resumed."""
    # The key is listed itself, or its section is.
    return any(key == name or key.startswith(f"{name}.") for name in FREE_TO_CHANGE)


def resume(
    workdir: Path, like: TrainState, num_devices: int, step: int | None = None
) -> tuple[TrainState | None, dict]:
    """(state, metadata) of the newest valid checkpoint, or of that of `step`.

    like: a state, or its shapes, whose tree the result has. Returns (None, {}) for a run without
    checkpoints.
    """
    # A new run has nothing to resume from.
    state = checkpoint.restore_latest(workdir, like, step)
    if state is None:
        return None, {}
    meta = checkpoint.read_meta(workdir, int(state.step))
    log.info("resuming from step %d of %s", meta["step"], workdir)
    # Another number of devices sums the same gradients in another order.
    before = meta.get("devices", num_devices)
    if before != num_devices:
        log.warning(
            "%d devices now, %d before: the same batches, sums rounded differently",
            num_devices,
            before,
        )
    return state, meta
