"""Writes checkpoints in such a way that an incomplete one is never visible to a reader.

    run_dir/lock
    run_dir/checkpoints/<step>/{encoder, denoiser, ema_encoder, ema_denoiser,
                                normalizer, optimizer, counters}/   arrays, by Orbax
                               meta.json    config, versions, score
                               digest.json  shape, dtype and sha256 of every leaf (integrity.py)

A step is written to a temporary folder, read back and compared with its digests, and only then
renamed to its number. So a kill at any time leaves the older steps as they were. reader.py is the
counterpart.
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

# The packages whose versions are recorded in meta.json.
PACKAGES = ("dpjax", "jax", "flax", "optax", "orbax-checkpoint", "numpy")

# {point: how many times this process has reached it}, for `_pass`.
_passings: collections.Counter = collections.Counter()


def _pass(point: str) -> None:
    """For tests: with DPJAX_KILL_AT=point:n, kills this process the n-th time it gets here."""
    # SIGKILL, as a full machine or a scheduler would: no handler runs, nothing is cleaned up.
    _passings[point] += 1
    if os.environ.get("DPJAX_KILL_AT") == f"{point}:{_passings[point]}":
        os.kill(os.getpid(), signal.SIGKILL)


class Checkpoints:
    """Writes the checkpoints of one run, in the process that has the run's lock.

    `save` returns once the arrays are copied to the host; a thread writes them. An error in the
    thread is raised once, by the next `save`, `wait` or `close`. A process that ends without
    `close` may lose the save in progress, but no older one.

    keep_best: the number of steps to keep beside the latest one. Steps with the best scores are
        kept; steps without a score rank below them, the newest first.
    """

    def __init__(self, run_dir: PathLike, *, keep_best: int = 3):
        self._root = layout.folder(run_dir)
        self._keep_best = keep_best
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._saving: Future | None = None  # the save in progress
        self._versions = _versions()
        # Temporary folders of a process that was killed. The lock excludes that one is running.
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
        """Saves a training state (a single copy, not one per device) as step `state.step`.

        If the step is saved already with the same arrays, only meta.json is replaced.

        Args:
            config, extra: dicts that JSON can represent; the keys of extra are added to meta.json.
            score: higher is better; None or NaN if there is none.

        Raises:
            UserError: if params or EMA are not finite, or the last save failed.
        """
        # One save at a time; this raises the error of the last one.
        self.wait()
        leaves = {item: integrity.by_path(tree) for item, tree in layout.items(state).items()}
        # Start all transfers from the device before waiting for the first one.
        for x in jax.tree.leaves(leaves):
            if isinstance(x, jax.Array):
                x.copy_to_host_async()
        # np.array copies: the training step reuses the state's buffers while the thread writes.
        leaves = jax.tree.map(lambda x: np.array(x, order="C"), leaves)
        step = int(leaves["counters"][("step",)])
        # Checked in this thread, so that the error is raised at this step and not at the next save.
        _check_finite(step, leaves)
        # JSON has no NaN.
        score = None if score is None or not math.isfinite(score) else float(score)
        # The keys of meta.json come last, so that extra cannot replace them.
        core = {"step": step, "score": score, "config": config, "versions": self._versions}
        text = integrity.seal({**(extra or {}), **core})
        # Writing to disk happens in the thread, while the training continues.
        self._saving = self._thread.submit(self._write, step, leaves, text)

    def wait(self) -> None:
        """Waits for the save in progress; raises its error if it failed."""
        if self._saving is not None:
            try:
                self._saving.result()
            finally:
                self._saving = None  # an error is raised once

    def close(self) -> None:
        """Waits for the save in progress, and ends the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def _write(self, step: int, leaves: dict[str, Leaves], meta: str) -> None:
        """Writes a step, unless it is saved already; runs in the thread."""
        _pass("before_save")
        tmp = self._root / f"{step}{TMP}"
        needed = sum(x.nbytes for x in jax.tree.leaves(leaves))
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(tmp, ignore_errors=True)
            # Check the free space first, instead of filling up the disk of other programs.
            if shutil.disk_usage(self._root).free < needed:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            # The digests are computed from the host copy, independently of Orbax.
            table = {item: integrity.entries(leaves[item]) for item in ITEMS}
            # An evaluation that ends later saves the same step again, with its score.
            if self._is_saved(step, table):
                files.write_atomically(self._root / str(step) / layout.META, meta)
            else:
                self._write_step(tmp, leaves, table, meta)
                self._commit(tmp, step)
            self._delete_old(step)
        except (OSError, ValueError, RuntimeError, Damaged) as error:
            shutil.rmtree(tmp, ignore_errors=True)  # free the space for the next save
            raise self._explain(step, needed, error) from error

    def _write_step(self, tmp: Path, leaves: dict[str, Leaves], table: Table, meta: str) -> None:
        """Writes a complete step to its temporary folder, and verifies it there."""
        # The arrays first, then the JSON files, whose presence means that the step is complete.
        tmp.mkdir()
        for item in ITEMS:
            integrity.write_arrays(tmp / item, leaves[item])
        _pass("after_arrays")
        files.write_atomically(tmp / layout.META, meta)
        files.write_atomically(tmp / layout.DIGEST, integrity.seal(table))
        # Read everything back and compare it with the table; raises `Damaged` if it differs.
        layout.read_step(tmp, table)
        integrity.sync_folder(tmp)

    def _is_saved(self, step: int, table: Table) -> bool:
        """Whether the step is saved already, undamaged and with the same arrays."""
        # The tables are compared first: they are small, and equal ones are rare.
        try:
            there = layout.read_table(self._root / str(step))
            return there == table and bool(layout.read_step(self._root / str(step), there))
        except (Damaged, FileNotFoundError):
            return False

    def _commit(self, tmp: Path, step: int) -> None:
        """Renames the temporary folder to the step's number, which makes the step visible.

        If there is a step of that number already, it is damaged, or it was saved before the run
        went back to an older step. A kill between the two renames loses this step only.
        """
        final = self._root / str(step)
        old = self._root / f"{step}{TMP}-old"
        _pass("before_commit")
        # `rename` cannot replace a folder that has files in it: move the old one away first.
        if final.exists():
            os.rename(final, old)
        os.rename(tmp, final)
        # The old folder is deleted only when the new name is on disk.
        integrity.sync_folder(self._root)
        shutil.rmtree(old, ignore_errors=True)

    def _delete_old(self, saved: int) -> None:
        """Deletes the steps that are neither the latest nor among the best."""
        # Scores are read from disk, since an earlier process may have saved some of the steps.
        there = layout.steps(self._root.parent)
        score = {step: layout.read_meta(self._root.parent, step)["score"] for step in there}
        # A step without a score ranks below all others; of equal ones the newer ranks higher.
        rank = lambda step: (-math.inf if score[step] is None else score[step], step)
        best = sorted(there, key=rank, reverse=True)[: self._keep_best]
        for step in set(there) - {*best, there[-1], saved}:
            # Rename before deleting: a half-deleted folder must not look like a step.
            deleted = self._root / f"{step}{TMP}-gone"
            os.rename(self._root / str(step), deleted)
            _pass("during_delete")
            shutil.rmtree(deleted, ignore_errors=True)

    def _explain(self, step: int, needed: int, error: Exception) -> UserError:
        """The error for a failed save: one line that says what the user can do about it."""
        where = f"checkpoint of step {step} in {self._root}"
        # A full disk. Libraries report it with another class and only the text in common.
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            free = shutil.disk_usage(self._root).free
            return UserError(
                f"{where}: the disk is full: {needed} bytes needed, {free} free. "
                "Earlier steps are untouched. Free some space."
            )
        # All others. Messages of libraries may have many lines.
        reason = " ".join(str(error).split())[:300]
        return UserError(f"{where} was not completed; earlier steps are untouched: {reason}")


def _check_finite(step: int, leaves: dict[str, Leaves]) -> None:
    """Raises a UserError if a leaf of params or EMA has NaN or infinity in it.

    The optimizer's state is not checked: it may have infinities by design (the best loss so far).
    """
    for item in set(ITEMS) - {"optimizer", "counters"}:
        for path, x in leaves[item].items():
            # Refused, since the new checkpoint would cause good ones to be deleted.
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
