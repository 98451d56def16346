"""The files of a run's checkpoints: a folder per step, a folder per item, and two JSON files."""

from collections.abc import Sequence
import logging
import os
from pathlib import Path
from typing import Any

from dpjax.core.errors import UserError
from dpjax.training.checkpoint import integrity
from dpjax.training.checkpoint.integrity import Damaged
from dpjax.training.state import TrainState

# The two JSON files of a step.
META = "meta.json"  # step, score, config, versions
DIGEST = "digest.json"  # shape, dtype and sha256 of every leaf
# Part of the name of a folder that is still being written, or that is being deleted.
TMP = ".dpjax-tmp"
# The items of every checkpoint. Each has its own folder, so that each can be read separately.
ITEMS = ("encoder", "denoiser", "ema_encoder", "ema_denoiser")
ITEMS += ("normalizer", "optimizer", "counters")
PathLike = str | os.PathLike
Table = dict[str, integrity.Entries]  # {item: table of its leaves}, the content of DIGEST
log = logging.getLogger("dpjax")


def folder(run_dir: PathLike) -> Path:
    """The folder with the checkpoints of a run, one per step."""
    return Path(run_dir) / "checkpoints"


def items(state: TrainState) -> dict[str, Any]:
    """A training state as {item of a checkpoint: tree}; params and EMA share the normalizer."""
    # A key that the items below do not have would not be saved.
    expected = {"encoder", "denoiser", "normalizer"}
    if set(state.params) != expected:
        raise UserError(
            f"params has the keys {sorted(state.params)}; checkpoints hold {sorted(expected)}.",
            argument="params",
        )
    return {
        "encoder": state.params["encoder"],
        "denoiser": state.params["denoiser"],
        "ema_encoder": state.ema["encoder"],
        "ema_denoiser": state.ema["denoiser"],
        "normalizer": state.params["normalizer"],
        "optimizer": state.opt_state,
        "counters": {"step": state.step, "ema_count": state.ema_count},
    }


def read_table(directory: Path) -> Table:
    """The digest table of a step; `Damaged` unless both of its JSON files are intact."""
    # An interrupted copy of a checkpoint may leave an empty folder.
    if not os.listdir(directory):
        raise Damaged("an empty folder")
    integrity.read_sealed(directory / META)
    # The table is sealed too, so that a flipped bit in it is not mistaken for one in an array.
    table = integrity.read_sealed(directory / DIGEST)
    # A checkpoint of another version may have other items.
    if set(table) != set(ITEMS):
        raise Damaged(f"{DIGEST}: lists the items {sorted(table)}, not {sorted(ITEMS)}")
    return table


def read_step(
    directory: Path, table: Table, names: Sequence[str] = ITEMS
) -> dict[str, integrity.Leaves]:
    """{item: {path: array}} of the named items; `Damaged` unless every leaf matches the table."""
    return {name: integrity.read_arrays(directory / name, table[name]) for name in names}


def list_steps(root: Path, warn: bool = False) -> list[int]:
    """The steps that have a folder, newest first.

    warn: log files and temporary folders whose names begin with a step.
    """
    there = []
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        # Only str(step) counts: "007" and "٣" are digits too, but not names of a step.
        name = path.name.split(".")[0]
        if not (name.isascii() and name.isdigit() and name == str(int(name))):
            continue
        # A folder is a step if its name is the number only.
        problem = ""
        if not path.is_dir():
            problem = "is a file, not a folder"
        elif path.name == name:
            there.append(int(name))
        elif "tmp" in path.name:  # temporary folders of Orbax and of dpjax
            problem = "is a save that did not finish"
        if warn and problem:
            log.warning("checkpoint skipped: %s %s", path.name, problem)
    return sorted(there, reverse=True)


def steps(run_dir: PathLike) -> list[int]:
    """The steps that look complete, in ascending order; the arrays are not verified."""
    # The JSON files are written after the arrays, so a step that has both is complete.
    complete = []
    for step in list_steps(folder(run_dir)):
        try:
            read_table(folder(run_dir) / str(step))
            complete.append(step)
        except (Damaged, OSError):
            pass
    return sorted(complete)


def read_meta(run_dir: PathLike, step: int) -> dict:
    """The meta.json of a step: step, config, versions, score, and extras."""
    # The file is sealed, so its content is what was saved.
    try:
        return integrity.read_sealed(folder(run_dir) / str(step) / META)
    except Damaged as error:
        raise UserError(
            f"checkpoint step {step} in {folder(run_dir)}: {error}. "
            f"Steps that look complete: {steps(run_dir) or 'none'}."
        ) from error
