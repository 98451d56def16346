"""Checkpoints that are either complete or invisible, and that are verified when read.

    run_dir/lock
    run_dir/checkpoints/<step>/{encoder, denoiser, ema_encoder, ema_denoiser,
                                normalizer, optimizer, counters}/   arrays, by Orbax
                               meta.json    config, versions, score
                               digest.json  shape, dtype and sha256 of every leaf (integrity.py)

A step is written under a temporary name, read back against its digests, and only then renamed to
its number. So a kill at any moment leaves the older steps as they were. This file writes; reader.py
reads.
"""

import collections
from concurrent.futures import Future, ThreadPoolExecutor
import errno
from importlib import metadata
import math
import os
from pathlib import Path
import platform
import shutil
import signal

import jax
import numpy as np

from dpjax.core import files
from dpjax.core.errors import UserError
from dpjax.training.checkpoint import integrity, layout
from dpjax.training.checkpoint.integrity import Damaged, Leaves
from dpjax.training.checkpoint.layout import ITEMS, TMP, PathLike, Table
from dpjax.training.state import TrainState

# Whose versions are in a checkpoint's meta.
PACKAGES = ("dpjax", "jax", "flax", "optax", "orbax-checkpoint", "numpy")

_passings: collections.Counter = collections.Counter()


def _pass(point: str) -> None:
    """Kills this process with SIGKILL at the n-th passing if DPJAX_KILL_AT=point:n (for tests)."""
    _passings[point] += 1
    if os.environ.get("DPJAX_KILL_AT") == f"{point}:{_passings[point]}":
        os.kill(os.getpid(), signal.SIGKILL)


class Checkpoints:
    """Writes the checkpoints of one run; one process has it, and holds the run's lock.

    `save` returns once the arrays are copied to the host; a thread does the rest. An error there is
    raised by the next `save`, `wait` or `close`, once. A process that ends without `close` may lose
    the save in flight, never an older one.

    keep_best: how many steps are kept beside the latest: those of the best score, then the newest.
    """

    def __init__(self, run_dir: PathLike, *, keep_best: int = 3):
        self._root = layout.folder(run_dir)
        self._keep_best = keep_best
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._saving: Future | None = None  # the save in flight
        self._versions = _versions()
        # What a killed process left. The lock says that no other one is writing here.
        for leftover in self._root.glob(f"*{TMP}*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def save(
        self,
        state: TrainState,
        *,
        config: dict,
        score: float | None = None,
        extra: dict | None = None,
    ) -> None:
        """Saves one copy of the state as step `state.step`.

        A step that is saved again with the same arrays only gets its meta replaced.

        Args:
            config, extra: dicts that JSON can hold; the keys of extra go beside meta's own.
            score: higher is better; None or NaN if there is none.

        Raises:
            UserError: if params or EMA are not finite, or the last save failed.
        """
        self.wait()
        leaves = {item: integrity.by_path(tree) for item, tree in layout.items(state).items()}
        # All transfers are started before the first one is waited for.
        for x in jax.tree.leaves(leaves):
            if isinstance(x, jax.Array):
                x.copy_to_host_async()
        # Copies: a donated or reused buffer must not change what is being written.
        leaves = jax.tree.map(lambda x: np.array(x, order="C"), leaves)
        step = int(leaves["counters"][("step",)])
        # Refused in this thread, so that the training stops at the step itself.
        _check_finite(step, leaves)
        score = None if score is None or not math.isfinite(score) else float(score)
        # meta's own keys come last: extra cannot replace them.
        core = {"step": step, "score": score, "config": config, "versions": self._versions}
        text = integrity.seal({**(extra or {}), **core})
        # The rest touches the disk, and the training goes on meanwhile.
        self._saving = self._thread.submit(self._write, step, leaves, text)

    def wait(self) -> None:
        """Returns when the save in flight is complete; raises the error of a failed one."""
        if self._saving is not None:
            try:
                self._saving.result()
            finally:
                self._saving = None

    def close(self) -> None:
        """Waits, and ends the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def _write(self, step: int, leaves: dict[str, Leaves], meta: str) -> None:
        """Writes a step, unless it is there already; runs in the thread."""
        _pass("before_save")
        tmp = self._root / f"{step}{TMP}"
        needed = sum(x.nbytes for x in jax.tree.leaves(leaves))
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(tmp, ignore_errors=True)
            # Refused in advance, which is better than filling the disk up.
            if shutil.disk_usage(self._root).free < needed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            # The digests are those of the host copy, before Orbax sees it.
            table = {item: integrity.entries(leaves[item]) for item in ITEMS}
            # A step that an evaluation scores later is saved twice: only its meta changes.
            if self._is_saved(step, table):
                files.write_atomically(self._root / str(step) / layout.META, meta)
            else:
                self._write_step(tmp, leaves, table, meta)
                self._commit(tmp, step)
            self._delete_old(step)
        except (OSError, ValueError, RuntimeError, Damaged) as error:
            shutil.rmtree(tmp, ignore_errors=True)  # the next save needs its space
            raise self._explain(step, needed, error) from error

    def _write_step(self, tmp: Path, leaves: dict[str, Leaves], table: Table, meta: str) -> None:
        """Writes a complete step under its temporary name, and reads it back from there."""
        tmp.mkdir()
        for item in ITEMS:
            integrity.write_arrays(tmp / item, leaves[item])
        _pass("after_arrays")
        files.write_atomically(tmp / layout.META, meta)
        files.write_atomically(tmp / layout.DIGEST, integrity.seal(table))
        # The proof: what is on disk now is what was to be saved.
        layout.read_step(tmp, table)
        integrity.sync_folder(tmp)

    def _is_saved(self, step: int, table: Table) -> bool:
        """Whether the step is there already, intact and with the same arrays."""
        try:
            there = layout.read_table(self._root / str(step))
            return there == table and bool(layout.read_step(self._root / str(step), there))
        except (Damaged, FileNotFoundError):
            return False

    def _commit(self, tmp: Path, step: int) -> None:
        """Gives the step its name: from here on a restore finds it.

        A step of that name is damaged, or of steps that are trained anew. A kill between the two
        renames loses that step alone.
        """
        final = self._root / str(step)
        old = self._root / f"{step}{TMP}-old"
        _pass("before_commit")
        # rename does not replace a folder that has files, so the old one makes room first.
        if final.exists():
            os.rename(final, old)
        os.rename(tmp, final)
        integrity.sync_folder(self._root)
        shutil.rmtree(old, ignore_errors=True)

    def _delete_old(self, saved: int) -> None:
        """Deletes the steps that are neither the latest nor among the best."""
        # Scores are read from the disk: an earlier process may have saved most of the steps.
        there = layout.steps(self._root.parent)
        score = {step: layout.read_meta(self._root.parent, step)["score"] for step in there}
        # Steps without a score rank below all others, newer ones above older ones.
        rank = lambda step: (-math.inf if score[step] is None else score[step], step)
        best = sorted(there, key=rank, reverse=True)[: self._keep_best]
        for step in set(there) - {*best, there[-1], saved}:
            # Renamed first: a half-deleted folder must not look like a step.
            deleted = self._root / f"{step}{TMP}-gone"
            os.rename(self._root / str(step), deleted)
            _pass("during_delete")
            shutil.rmtree(deleted, ignore_errors=True)

    def _explain(self, step: int, needed: int, error: Exception) -> UserError:
        """One line about a save that failed, and what the user can mend."""
        where = f"checkpoint of step {step} in {self._root}"
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            free = shutil.disk_usage(self._root).free
            return UserError(
                f"{where}: the disk is full: {needed} bytes needed, {free} free. "
                "Earlier steps are untouched. Free some space."
            )
        # Errors of libraries can have many lines.
        reason = " ".join(str(error).split())[:300]
        return UserError(f"{where} was not completed; earlier steps are untouched: {reason}")


def _check_finite(step: int, leaves: dict[str, Leaves]) -> None:
    """Raises a UserError that names a leaf of params or EMA with NaN or infinity in it.

    Optimizers may hold infinities by design (the best loss so far), so theirs pass.
    """
    for item in set(ITEMS) - {"optimizer", "counters"}:
        for path, x in leaves[item].items():
            # A checkpoint of NaNs would replace good ones.
            bad = integrity.count_non_finite(x)
            if bad:
                raise UserError(
                    f"step {step} is not saved: {'/'.join((item, *path))} has {bad} non-finite "
                    "values; the last good checkpoint stays. Lower the learning rate or check the "
                    "data.",
                    argument="lr",
                )


def _versions() -> dict[str, str]:
    """Versions of Python and of the packages that write the checkpoint."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name.split("-")[0]] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"  # dpjax, run from its source
    return versions
