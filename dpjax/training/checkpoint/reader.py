"""Reading checkpoints: the newest step that proves to be what was saved.

Nobody's listing is trusted: a step counts once its table is intact and every leaf that
is asked for agrees with it. What is passed over on the way is said, a line each.
"""

from collections.abc import Callable, Sequence
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dpjax.core.errors import UserError, choices
from dpjax.core.normalizer import Normalizer
from dpjax.core.types import Params
from dpjax.training.checkpoint import integrity
from dpjax.training.checkpoint.integrity import Damaged
from dpjax.training.state import TrainState

META, DIGEST, TMP = "meta.json", "digest.json", ".dpjax-tmp"
ITEMS = (
    "encoder",
    "denoiser",
    "ema_encoder",
    "ema_denoiser",
    "normalizer",
    "optimizer",
    "counters",
)
Table = dict[str, integrity.Entries]  # {item: its leaves}


def folder(run_dir) -> Path:
    """Where a run keeps its steps."""
    return Path(run_dir) / "checkpoints"


def items(state: TrainState) -> dict[str, Any]:
    """The state as the items of a checkpoint; raw and ema share the normalizer."""
    expected = {"encoder", "denoiser", "normalizer"}
    if set(state.params) != expected:
        raise UserError(
            f"params has the keys {sorted(state.params)}; checkpoints hold {sorted(expected)}."
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
    """The table of a step whose two JSON files are intact; else Damaged."""
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
    """{item: {path: array}} of the named items, every leaf compared; else Damaged."""
    return {name: integrity.read_arrays(directory / name, table[name]) for name in names}


def steps(run_dir) -> list[int]:
    """The steps that look complete, in order; only reading them proves it."""
    complete = []
    for step in _listed(folder(run_dir))[0]:
        try:
            read_table(folder(run_dir) / str(step))
            complete.append(step)
        except (Damaged, OSError):
            pass
    return sorted(complete)


def read_meta(run_dir, step: int) -> dict:
    """What was saved beside the arrays: step, config, versions, score, and extras."""
    try:
        return integrity.read_sealed(folder(run_dir) / str(step) / META)
    except Damaged as error:
        raise UserError(
            f"checkpoint step {step} in {folder(run_dir)}: {error}. "
            f"Steps that look complete: {steps(run_dir) or 'none'}."
        ) from error


def restore_latest(
    run_dir, like: TrainState, step: int | None = None
) -> tuple[TrainState | None, list[str]]:
    """The newest good state, as numpy in the tree of `like`, and what was passed over.

    step: that one and no other. None if the run has no step yet. Steps of which none is
    good are an error: starting afresh over them is the user's decision. So is another tree,
    shape or dtype.
    """
    expected = {name: integrity.by_path(tree) for name, tree in items(like).items()}

    def read(step, directory, table):
        _check_fit(f"checkpoint step {step} in {directory.parent}", table, expected)
        return read_step(directory, table)

    _, found, said = _newest_good(run_dir, read, step)
    if found is None:
        return None, said
    trees = {
        # In the order of `like`: the table's own order is that of the run that saved.
        name: jax.tree.unflatten(
            jax.tree.structure(tree), [found[name][path] for path in expected[name]]
        )
        for name, tree in items(like).items()
    }
    return _state(trees, like), said


def load_items(
    run_dir, names: Sequence[str], step: int | None = None
) -> tuple[dict[str, Any], int, list[str]]:
    """The named items as numpy trees, their step, and what was passed over.

    Nested dicts, whatever the tree was (an optimizer's tuples become "0", "1", …); only
    the normalizer comes back as a Normalizer. step: None for the newest good one.
    """
    for name in names:
        if name not in ITEMS:
            raise UserError(f"a checkpoint has no item {name!r}; {choices(name, ITEMS)}.")
    read = lambda _, directory, table: read_step(directory, table, names)
    step, found, said = _newest_good(run_dir, read, step)
    if found is None:
        raise UserError(f"no checkpoint in {folder(run_dir)}: train first, or check the path.")
    trees = {name: integrity.nest(found[name]) for name in names}
    if "normalizer" in trees:
        tree = trees["normalizer"]
        trees["normalizer"] = Normalizer(tree.get("offset", {}), tree.get("scale", {}))
    return trees, step, said


def load_params(
    run_dir, *, which: str = "ema", step: int | None = None
) -> tuple[Params, int, list[str]]:
    """Averaged ("ema") or raw ("raw") params, their step, and what was passed over."""
    prefixes = {"ema": "ema_", "raw": ""}
    if which not in prefixes:
        raise UserError(f"which={which!r} is unknown; {choices(which, prefixes)}.")
    names = {key: prefixes[which] + key for key in ("encoder", "denoiser")}
    names["normalizer"] = "normalizer"
    found, step, said = load_items(run_dir, tuple(names.values()), step)
    return {key: found[name] for key, name in names.items()}, step, said


def _state(trees, like):
    params = {key: trees[key] for key in ("encoder", "denoiser", "normalizer")}
    ema = {key: trees[f"ema_{key}"] for key in ("encoder", "denoiser")}
    return like.replace(
        params=params,
        ema={**ema, "normalizer": trees["normalizer"]},
        opt_state=trees["optimizer"],
        **trees["counters"],
    )


def _newest_good(run_dir, read: Callable, only: int | None = None):
    """(step, read(step, directory, table), lines said), or (None, None, lines).

    only: the one step to try, instead of all from the newest down.
    """
    root, reasons = folder(run_dir), []
    found, said = _listed(root)
    if only is not None and only not in found:
        raise UserError(f"no step {only} in {root}; there are {sorted(found) or 'none'}.")
    for step in found if only is None else [only]:
        directory = root / str(step)
        try:
            return step, read(step, directory, read_table(directory)), said
        except (Damaged, OSError) as error:
            reasons.append(f"step {step}: {error}")
            said.append(f"checkpoint passed over: {reasons[-1]}")
    if reasons:
        raise UserError(
            f"no good checkpoint in {root}: {'; '.join(reasons)}. Restore a copy, or move "
            "the folder away to start afresh."
        )
    return None, None, said


def _listed(root: Path) -> tuple[list[int], list[str]]:
    """Folders whose name is a step, newest first, and a line on what only looks like one."""
    found, said = [], []
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        name = path.name.split(".")[0]
        if not (name.isascii() and name.isdigit() and name == str(int(name))):
            continue
        if not path.is_dir():
            said.append(f"checkpoint passed over: {path.name} is a file, not a folder")
        elif path.name == name:
            found.append(int(name))
        elif "tmp" in path.name:
            said.append(f"checkpoint passed over: {path.name} is a save that didn't finish")
    return sorted(found, reverse=True), said


def _check_fit(where, table, expected):
    """UserError naming the leaves whose presence, shape or dtype isn't as expected."""
    wrong = []
    for name in ITEMS:
        have = {tuple(entry["path"]): integrity.spec(entry) for entry in table[name]}
        want = {
            path: integrity.spec({"dtype": np.dtype(x.dtype), "shape": x.shape})
            for path, x in expected[name].items()
        }
        wrong += [
            f"{'/'.join((name, *path))}: checkpoint has {have.get(path, 'no such leaf')}, "
            f"expected {want.get(path, 'no such leaf')}"
            for path in sorted({*have, *want})
            if have.get(path) != want.get(path)
        ]
    if wrong:
        more = f" (and {len(wrong) - 5} more leaves)" if len(wrong) > 5 else ""
        raise UserError(
            f"{where} does not fit: {'; '.join(wrong[:5])}{more}. Resume with the config "
            "that it was made with, or choose another workdir."
        )
