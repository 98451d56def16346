"""Reading checkpoints: the newest step that proves to be what was saved.

Directory listings are not trusted. A checkpoint is valid only if its digest table is intact and
every requested leaf matches it; skipped checkpoints are logged.
"""

from collections.abc import Callable, Sequence
import logging
import os
from pathlib import Path
from typing import Any

import jax

from dpjax.core.errors import UserError, choices
from dpjax.core.normalizer import Normalizer
from dpjax.core.types import Params
from dpjax.training.checkpoint import integrity
from dpjax.training.checkpoint.integrity import Damaged
from dpjax.training.state import TrainState

META = "meta.json"
DIGEST = "digest.json"
TMP = ".dpjax-tmp"  # in the name of what is not a checkpoint yet, or not any more
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
    if not os.listdir(directory):
        raise Damaged("an empty folder")
    integrity.read_sealed(directory / META)
    table = integrity.read_sealed(directory / DIGEST)
    if set(table) != set(ITEMS):
        raise Damaged(f"{DIGEST}: lists the items {sorted(table)}, not {sorted(ITEMS)}")
    return table


def read_step(
    directory: Path, table: Table, names: Sequence[str] = ITEMS
) -> dict[str, integrity.Leaves]:
    """{item: {path: array}} of the named items; `Damaged` unless every leaf matches the table."""
    return {name: integrity.read_arrays(directory / name, table[name]) for name in names}


def steps(run_dir: PathLike) -> list[int]:
    """The steps that look complete, in ascending order; only reading them proves it."""
    complete = []
    for step in _list_steps(folder(run_dir)):
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


def restore_latest(
    run_dir: PathLike, like: TrainState, step: int | None = None
) -> TrainState | None:
    """The newest valid training state, as numpy arrays in the tree of `like`.

    Args:
        like: a state, or its shapes and dtypes.
        step: restore this step and no other.

    Returns:
        The state, or None if the run has no checkpoint yet.

    Raises:
        UserError: if there are checkpoints and none is valid (starting afresh over them is the
            user's decision), or if tree, shapes or dtypes differ from those of `like`.
    """
    expected = {name: integrity.by_path(tree) for name, tree in items(like).items()}

    def read(step: int, directory: Path, table: Table) -> dict[str, integrity.Leaves]:
        _check_fit(f"checkpoint step {step} in {directory.parent}", table, expected)
        return read_step(directory, table)

    valid = _newest_valid(run_dir, read, step)
    if valid is None:
        return None
    _, leaves = valid
    # Leaves are put into the tree in the order of `like`: the table's order is that of the run
    # that saved.
    trees = {}
    for name, tree in items(like).items():
        ordered = [leaves[name][path] for path in expected[name]]
        trees[name] = jax.tree.unflatten(jax.tree.structure(tree), ordered)
    return _state_of(trees, like)


def load_items(
    run_dir: PathLike, names: Sequence[str], step: int | None = None
) -> tuple[dict[str, Any], int]:
    """The named items of a checkpoint as numpy trees, and the step that they are of.

    Trees are nested dicts whatever they were when they were saved (an optimizer's tuples become
    "0", "1", …); only the normalizer comes back as a Normalizer.

    Args:
        step: the step to load; None for the newest valid one.

    Raises:
        UserError: if no checkpoint, or not that of `step`, is there and valid.
    """
    for name in names:
        if name not in ITEMS:
            text = f"a checkpoint has no item {name!r}; {choices(name, ITEMS)}."
            raise UserError(text, argument="names")
    read = lambda _, directory, table: read_step(directory, table, names)
    valid = _newest_valid(run_dir, read, step)
    if valid is None:
        raise UserError(f"no checkpoint in {folder(run_dir)}: train first, or check the path.")
    step, leaves = valid
    trees = {name: integrity.nest(leaves[name]) for name in names}
    if "normalizer" in trees:
        tree = trees["normalizer"]
        trees["normalizer"] = Normalizer(tree.get("offset", {}), tree.get("scale", {}))
    return trees, step


def load_params(
    run_dir: PathLike, *, which: str = "ema", step: int | None = None
) -> tuple[Params, int]:
    """The params of a checkpoint and its step: averaged (which="ema") or as trained ("raw").

    step: the step to load; None for the newest valid one.
    """
    prefixes = {"ema": "ema_", "raw": ""}
    if which not in prefixes:
        text = f"which={which!r} is unknown; {choices(which, prefixes)}."
        raise UserError(text, argument="which")
    names = {key: prefixes[which] + key for key in ("encoder", "denoiser")}
    names["normalizer"] = "normalizer"
    trees, step = load_items(run_dir, tuple(names.values()), step)
    return {key: trees[name] for key, name in names.items()}, step


def _state_of(trees: dict[str, Any], like: TrainState) -> TrainState:
    """The training state of a checkpoint's items."""
    params = {key: trees[key] for key in ("encoder", "denoiser", "normalizer")}
    ema = {key: trees[f"ema_{key}"] for key in ("encoder", "denoiser")}
    return like.replace(
        params=params,
        ema={**ema, "normalizer": trees["normalizer"]},
        opt_state=trees["optimizer"],
        **trees["counters"],
    )


def _newest_valid(
    run_dir: PathLike, read: Callable[[int, Path, Table], Any], only: int | None = None
) -> tuple[int, Any] | None:
    """(step, read(step, directory, table)) of the newest valid checkpoint; None without any.

    only: the one step to try, instead of all from the newest down.
    """
    root = folder(run_dir)
    there = _list_steps(root, warn=True)
    if only is not None and only not in there:
        text = f"no step {only} in {root}; there are {sorted(there) or 'none'}."
        raise UserError(text, argument="step")
    reasons = []
    for step in there if only is None else [only]:
        directory = root / str(step)
        try:
            return step, read(step, directory, read_table(directory))
        except (Damaged, OSError) as error:
            reasons.append(f"step {step}: {error}")
            log.warning("checkpoint skipped: %s", reasons[-1])
    if reasons:
        raise UserError(
            f"no good checkpoint in {root}: {'; '.join(reasons)}. Restore a copy, or move "
            "the folder away to start afresh."
        )
    return None


def _list_steps(root: Path, warn: bool = False) -> list[int]:
    """The folders whose name is a step, newest first.

    warn: log whatever only looks like a step.
    """
    there = []
    for path in sorted(root.iterdir()) if root.is_dir() else ():
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


def _check_fit(where: str, table: Table, expected: dict[str, integrity.Leaves]) -> None:
    """Raises a UserError that names leaves which the checkpoint has otherwise, or not at all."""
    wrong = []
    for name in ITEMS:
        wrong += integrity.mismatches(name, table[name], expected[name])
    if wrong:
        more = f" (and {len(wrong) - 5} more leaves)" if len(wrong) > 5 else ""
        raise UserError(
            f"{where} does not fit: {'; '.join(wrong[:5])}{more}. Resume with the config "
            "that it was made with, or choose another workdir."
        )
