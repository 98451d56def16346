"""Reads the newest valid checkpoint of a run.

Directory listings are not trusted. A checkpoint is valid only if its digest table is intact and
every requested leaf matches it; skipped checkpoints are logged.
"""

from collections.abc import Callable, Sequence
import logging
from pathlib import Path
from typing import Any

import jax

from dpjax.core.errors import UserError, choices
from dpjax.core.normalizer import Normalizer
from dpjax.core.types import Params
from dpjax.training.checkpoint import integrity, layout
from dpjax.training.checkpoint.integrity import Damaged
from dpjax.training.checkpoint.layout import PathLike, Table
from dpjax.training.state import TrainState

log = logging.getLogger("dpjax")


def restore_latest(
    run_dir: PathLike, like: TrainState, step: int | None = None
) -> TrainState | None:
    """The newest valid training state, as numpy arrays in the tree of `like`.

    Args:
        like: a state, or its shapes and dtypes.
        step: the step to restore; None for the newest valid one.

    Returns:
        The state, or None if the run has no checkpoint yet.

    Raises:
        UserError: if there are checkpoints but none is valid (only the user can decide to start
            again from step 0), or if tree, shapes or dtypes differ from those of `like`.
    """
    # The leaves that the state must have. They are compared with the table of a checkpoint before
    # any array is read.
    expected = {name: integrity.by_path(tree) for name, tree in layout.items(like).items()}

    def read(step: int, directory: Path, table: Table) -> dict[str, integrity.Leaves]:
        # A state that does not fit raises a UserError, which ends the search. `Damaged` does not:
        # the next older step is tried.
        _check_fit(f"checkpoint step {step} in {directory.parent}", table, expected)
        return layout.read_step(directory, table)

    valid = _newest_valid(run_dir, read, step)
    if valid is None:
        return None
    _, leaves = valid
    # Put the leaves into the tree of `like`, in its order: the run that saved them may have had
    # another one.
    trees = {}
    for name, tree in layout.items(like).items():
        # `unflatten` also restores the tuples and dataclasses of the optimizer's state.
        ordered = [leaves[name][path] for path in expected[name]]
        trees[name] = jax.tree.unflatten(jax.tree.structure(tree), ordered)
    return _state_of(trees, like)


def load_items(
    run_dir: PathLike, names: Sequence[str], step: int | None = None
) -> tuple[dict[str, Any], int]:
    """The named items of a checkpoint as trees of numpy arrays, and the checkpoint's step.

    The trees are nested dicts: tuples, such as those of an optimizer, become dicts with the keys
    "0", "1", …. Only the normalizer is returned as a Normalizer.

    Args:
        names: see `layout.ITEMS`.
        step: the step to load; None for the newest valid one.

    Raises:
        UserError: if there is no valid checkpoint, or that of `step` is missing or damaged.
    """
    # A misspelt name is reported before anything is read.
    for name in names:
        if name not in layout.ITEMS:
            text = f"a checkpoint has no item {name!r}; {choices(name, layout.ITEMS)}."
            raise UserError(text, argument="names")
    # Only the named items are read and verified, so damage in other items does not matter.
    read = lambda _, directory, table: layout.read_step(directory, table, names)
    valid = _newest_valid(run_dir, read, step)
    if valid is None:
        raise UserError(
            f"no checkpoint in {layout.folder(run_dir)}: train first, or check the path."
        )
    step, leaves = valid
    # The normalizer's methods are needed; the other items are used as dicts. A normalizer without
    # keys has no leaves, and so no "offset" and "scale".
    trees = {name: integrity.nest(leaves[name]) for name in names}
    if "normalizer" in trees:
        tree = trees["normalizer"]
        trees["normalizer"] = Normalizer(tree.get("offset", {}), tree.get("scale", {}))
    return trees, step


def load_params(
    run_dir: PathLike, *, which: str = "ema", step: int | None = None
) -> tuple[Params, int]:
    """The params of a checkpoint, and its step.

    Args:
        which: "ema" for the averaged weights, "raw" for those of the last optimizer step.
        step: the step to load; None for the newest valid one.
    """
    # The prefix of the items' names.
    prefixes = {"ema": "ema_", "raw": ""}
    if which not in prefixes:
        text = f"which={which!r} is unknown; {choices(which, prefixes)}."
        raise UserError(text, argument="which")
    # The normalizer is not averaged: it is the same item for both.
    names = {key: prefixes[which] + key for key in ("encoder", "denoiser")}
    names["normalizer"] = "normalizer"
    trees, step = load_items(run_dir, tuple(names.values()), step)
    return {key: trees[name] for key, name in names.items()}, step


def _state_of(trees: dict[str, Any], like: TrainState) -> TrainState:
    """The training state from the items of a checkpoint; the inverse of `layout.items`."""
    # The normalizer is stored once and is part of both params and EMA.
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
    root = layout.folder(run_dir)
    # A step that was asked for must exist.
    there = layout.list_steps(root, warn=True)
    if only is not None and only not in there:
        text = f"no step {only} in {root}; there are {sorted(there) or 'none'}."
        raise UserError(text, argument="step")
    # Try the steps from the newest down until one is read completely.
    reasons = []
    for step in there if only is None else [only]:
        directory = root / str(step)
        try:
            return step, read(step, directory, layout.read_table(directory))
        except (Damaged, OSError) as error:
            reasons.append(f"step {step}: {error}")
            log.warning("checkpoint skipped: %s", reasons[-1])
    # If there are checkpoints, one must be valid. If there are none, the run has just started.
    if reasons:
        raise UserError(
            f"no good checkpoint in {root}: {'; '.join(reasons)}. Restore a copy, or move "
            "the folder away to start afresh."
        )
    return None


def _check_fit(where: str, table: Table, expected: dict[str, integrity.Leaves]) -> None:
    """Raises a UserError if a checkpoint has other leaves, shapes or dtypes than expected."""
    # Every leaf of every item.
    wrong = []
    for name in layout.ITEMS:
        wrong += integrity.mismatches(name, table[name], expected[name])
    # Another network or optimizer differs in many leaves, so only the first five are listed.
    if wrong:
        more = f" (and {len(wrong) - 5} more leaves)" if len(wrong) > 5 else ""
        raise UserError(
            f"{where} does not fit: {'; '.join(wrong[:5])}{more}. Resume with the config "
            "that it was made with, or choose another workdir."
        )
