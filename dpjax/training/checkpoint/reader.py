"""Reading checkpoints: the newest step that proves to be what was saved.

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
        step: restore this step and no other.

    Returns:
        The state, or None if the run has no checkpoint yet.

    Raises:
        UserError: if there are checkpoints and none is valid (starting afresh over them is the
            user's decision), or if tree, shapes or dtypes differ from those of `like`.
    """
    # The leaves that the state must have, to be compared before any array is read.
    expected = {name: integrity.by_path(tree) for name, tree in layout.items(like).items()}

    def read(step: int, directory: Path, table: Table) -> dict[str, integrity.Leaves]:
        # Another tree is the user's mistake and stops here; damage goes on to the next step.
        _check_fit(f"checkpoint step {step} in {directory.parent}", table, expected)
        return layout.read_step(directory, table)

    valid = _newest_valid(run_dir, read, step)
    if valid is None:
        return None
    _, leaves = valid
    # Leaves are put into the tree in the order of `like`: the table's order is that of the run
    # that saved.
    trees = {}
    for name, tree in layout.items(like).items():
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
        if name not in layout.ITEMS:
            text = f"a checkpoint has no item {name!r}; {choices(name, layout.ITEMS)}."
            raise UserError(text, argument="names")
    # Only the named items are read and compared: damage in others does not matter.
    read = lambda _, directory, table: layout.read_step(directory, table, names)
    valid = _newest_valid(run_dir, read, step)
    if valid is None:
        raise UserError(
            f"no checkpoint in {layout.folder(run_dir)}: train first, or check the path."
        )
    step, leaves = valid
    # The normalizer is the only item whose class its users need.
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
    # The normalizer is not averaged, so both kinds of params share it.
    names = {key: prefixes[which] + key for key in ("encoder", "denoiser")}
    names["normalizer"] = "normalizer"
    trees, step = load_items(run_dir, tuple(names.values()), step)
    return {key: trees[name] for key, name in names.items()}, step


def _state_of(trees: dict[str, Any], like: TrainState) -> TrainState:
    """The training state of a checkpoint's items."""
    # The normalizer is stored once and belongs to both.
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
    there = layout.list_steps(root, warn=True)
    if only is not None and only not in there:
        text = f"no step {only} in {root}; there are {sorted(there) or 'none'}."
        raise UserError(text, argument="step")
    # From the newest down, until one is read completely.
    reasons = []
    for step in there if only is None else [only]:
        directory = root / str(step)
        try:
            return step, read(step, directory, layout.read_table(directory))
        except (Damaged, OSError) as error:
            reasons.append(f"step {step}: {error}")
            log.warning("checkpoint skipped: %s", reasons[-1])
    # Checkpoints without a valid one are an error, and no checkpoint at all is a fresh run.
    if reasons:
        raise UserError(
            f"no good checkpoint in {root}: {'; '.join(reasons)}. Restore a copy, or move "
            "the folder away to start afresh."
        )
    return None


def _check_fit(where: str, table: Table, expected: dict[str, integrity.Leaves]) -> None:
    """Raises a UserError that names leaves which the checkpoint has otherwise, or not at all."""
    # Another network or optimizer differs in many leaves; the first five say enough.
    wrong = []
    for name in layout.ITEMS:
        wrong += integrity.mismatches(name, table[name], expected[name])
    if wrong:
        more = f" (and {len(wrong) - 5} more leaves)" if len(wrong) > 5 else ""
        raise UserError(
            f"{where} does not fit: {'; '.join(wrong[:5])}{more}. Resume with the config "
            "that it was made with, or choose another workdir."
        )
