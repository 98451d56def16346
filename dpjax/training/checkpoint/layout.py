"""What a run's checkpoints look like on disk: folders of steps, items, and the two JSON files."""

from collections.abc import Sequence
import logging
import os
from pathlib import Path
from typing import Any

from dpjax.core.errors import UserError
from dpjax.training.checkpoint import integrity
from dpjax.training.checkpoint.integrity import Damaged
from dpjax.training.state import TrainState

# The two JSON files of a step: config, versions and score; and the digest of every leaf.
META = "meta.json"
DIGEST = "digest.json"
# Part of the name of a folder that is not a checkpoint yet, or not any more.
TMP = ".dpjax-tmp"
# The items of every checkpoint, each a folder of its own, so that each can be read alone.
ITEMS = ("encoder", "denoiser", "ema_encoder", "ema_denoiser")
ITEMS += ("normalizer", "optimizer", "counters")
PathLike = str | os.PathLike
Table = dict[str, integrity.Entries]  # {item: its leaves}
log = logging.getLogger("dpjax")


def folder(run_dir: PathLike) -> Path:
    """The folder with the checkpoints of a run, one per step."""
    return Path(run_dir) / "checkpoints"


def items(state: TrainState) -> dict[str, Any]:
    """A training state as {item of a checkpoint: tree}; params and EMA share the normalizer."""
    # Another key would be dropped silently.
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
    # Folders of other programs and of interrupted copies may be empty.
    if not os.listdir(directory):
        raise Damaged("an empty folder")
    integrity.read_sealed(directory / META)
    # The digests are sealed too, so that a flipped bit in them is not taken for one in an array.
    table = integrity.read_sealed(directory / DIGEST)
    if set(table) != set(ITEMS):
        raise Damaged(f"{DIGEST}: lists the items {sorted(table)}, not {sorted(ITEMS)}")
    return table


def read_step(
    directory: Path, table: Table, names: Sequence[str] = ITEMS
) -> dict[str, integrity.Leaves]:
    """{item: {path: array}} of the named items; `Damaged` unless every leaf matches the table."""
    return {name: integrity.read_arrays(directory / name, table[name]) for name in names}


def list_steps(root: Path, warn: bool = False) -> list[int]:
    """The folders whose name is a step, newest first.

    warn: log whatever only looks like a step.
    """
    there = []
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        # "007" or "٣" are not names that a step can have.
        name = path.name.split(".")[0]
        if not (name.isascii() and name.isdigit() and name == str(int(name))):
            continue
        problem = ""
        if not path.is_dir():
            problem = "is a file, not a folder"
        elif path.name == name:
            there.append(int(name))
        elif "tmp" in path.name:  # Orbax's temporary folders, and dpjax's
            problem = "is a save that did not finish"
        if warn and problem:
            log.warning("checkpoint skipped: %s %s", path.name, problem)
    return sorted(there, reverse=True)


def steps(run_dir: PathLike) -> list[int]:
    """The steps that look complete, in ascending order; only reading them proves it."""
    # Both JSON files are written after the arrays: with them, nothing is missing.
    complete = []
    for step in list_steps(folder(run_dir)):
        try:
            read_table(folder(run_dir) / str(step))
            complete.append(step)
        except (Damaged, OSError):
            pass
    return sorted(complete)


def read_meta(run_dir: PathLike, step: int) -> dict:
    """What was saved beside the arrays: step, config, versions, score, and extras."""
    try:
        return integrity.read_sealed(folder(run_dir) / str(step) / META)
    except Damaged as error:
        raise UserError(
            f"checkpoint step {step} in {folder(run_dir)}: {error}. "
            f"Steps that look complete: {steps(run_dir) or 'none'}."
        ) from error
