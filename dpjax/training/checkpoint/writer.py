"""Checkpoints that are either whole or invisible, and that are checked when read.

    run_dir/lock
    run_dir/checkpoints/<step>/{encoder, denoiser, ema_encoder, ema_denoiser,
                                normalizer, optimizer, counters}/   arrays, by Orbax
                               meta.json    config, versions, score
                               digest.json  what every leaf must be (digest.py)

A step is written under a temporary name, read back against its digests, and only then
renamed to its number: a kill at any moment leaves the older steps as they were. This
file writes; restore.py reads.
"""

import collections
from concurrent.futures import ThreadPoolExecutor
import errno
import fcntl
from importlib import metadata
import math
import os
from pathlib import Path
import platform
import shutil
import signal
import time

import jax
import numpy as np

from dpjax.core.errors import UserError
from dpjax.training.checkpoint import integrity
from dpjax.training.checkpoint.integrity import Damaged
from dpjax.training.checkpoint.reader import (
    DIGEST,
    ITEMS,
    META,
    TMP,
    folder,
    items,
    read_meta,
    read_step,
    read_table,
    steps,
)
from dpjax.training.state import TrainState

PACKAGES = ("dpjax", "jax", "flax", "optax", "orbax-checkpoint", "numpy")

_passed = collections.Counter()
_locks = []  # a lock lasts until its file is closed: by the caller, or with the process


def _passing(point: str) -> None:
    """kill -9 of this process at the n-th passing, if DPJAX_KILL_AT=point:n (for tests)."""
    _passed[point] += 1
    if os.environ.get("DPJAX_KILL_AT") == f"{point}:{_passed[point]}":
        os.kill(os.getpid(), signal.SIGKILL)


class Checkpoints:
    """The writer of one run's checkpoints; one process has it, and holds the run's lock.

    save() returns once the arrays are copied to the host; a thread does the rest. What
    goes wrong there is raised by the next save(), wait() or close(), once. Leaving
    Python without close() may lose the save in flight, never an older one.

    keep_best: how many steps stay, best score first and then newest, beside the latest.
    """

    def __init__(self, run_dir, *, keep_best: int = 3):
        self._root = folder(run_dir)
        self._keep_best = keep_best
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._saving = None
        self._versions = _versions()
        for left_over in self._root.glob(f"*{TMP}*"):
            shutil.rmtree(left_over, ignore_errors=True)

    def save(self, state: TrainState, *, config: dict, score=None, extra=None) -> None:
        """Saves the state (one copy, not one a device) as step `state.step`.

        config, extra: dicts that JSON can hold; extra's keys go beside meta's own.
        score: a number, higher is better; None or NaN is no score. A step that is
            saved again with the same arrays only gets its meta replaced.
        """
        self.wait()
        leaves = {item: integrity.by_path(tree) for item, tree in items(state).items()}
        for x in jax.tree.leaves(leaves):
            if isinstance(x, jax.Array):
                x.copy_to_host_async()
        # Copies: a donated or reused buffer must not change what is being written.
        leaves = jax.tree.map(lambda x: np.array(x, order="C"), leaves)
        step = int(leaves["counters"][("step",)])
        _check_finite(step, leaves)
        score = None if score is None or not math.isfinite(score) else float(score)
        core = {"step": step, "score": score, "config": config, "versions": self._versions}
        text = integrity.seal({**(extra or {}), **core})
        self._saving = self._thread.submit(self._write, step, leaves, text)

    def wait(self) -> None:
        """Returns when the save in flight is complete; raises what went wrong in it."""
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

    def _write(self, step, leaves, meta):
        _passing("before_save")
        tmp = self._root / f"{step}{TMP}"
        needed = sum(x.nbytes for x in jax.tree.leaves(leaves))
        try:
            self._root.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(tmp, ignore_errors=True)
            if shutil.disk_usage(self._root).free < needed:  # better than filling it up
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            table = {item: integrity.entries(leaves[item]) for item in ITEMS}
            if self._holds(step, table):
                integrity.write_sealed(self._root / str(step) / META, meta)
            else:
                self._write_step(tmp, leaves, table, meta)
                self._commit(tmp, step)
            self._forget(step)
        except (OSError, ValueError, RuntimeError, Damaged) as error:
            shutil.rmtree(tmp, ignore_errors=True)  # it holds the space of the next save
            raise self._explain(step, needed, error) from error

    def _write_step(self, tmp, leaves, table, meta):
        """The whole step under its temporary name, read back from there."""
        tmp.mkdir()
        for item in ITEMS:
            integrity.write_arrays(tmp / item, leaves[item])
        _passing("after_arrays")
        integrity.write_sealed(tmp / META, meta)
        integrity.write_sealed(tmp / DIGEST, integrity.seal(table))
        read_step(tmp, table)
        integrity.sync_folder(tmp)

    def _holds(self, step, table):
        """Whether the step is there already, whole, with the same arrays."""
        try:
            there = read_table(self._root / str(step))
            return there == table and bool(read_step(self._root / str(step), there))
        except (Damaged, FileNotFoundError):
            return False

    def _commit(self, tmp, step):
        """Gives the step its name: from here on it is what a restore finds.

        A step in the way was passed over as damaged, or is being trained anew. A kill
        between the two renames loses that step alone.
        """
        final, old = self._root / str(step), self._root / f"{step}{TMP}-old"
        _passing("before_commit")
        if final.exists():
            os.rename(final, old)
        os.rename(tmp, final)
        integrity.sync_folder(self._root)
        shutil.rmtree(old, ignore_errors=True)

    def _forget(self, saved):
        """Deletes what is neither the latest nor among the best.

        Renamed first: half a deletion must not look like a step.
        """
        there = steps(self._root.parent)
        score = {s: read_meta(self._root.parent, s)["score"] for s in there}
        worth = lambda s: (-math.inf if score[s] is None else score[s], s)
        best = sorted(there, key=worth, reverse=True)[: self._keep_best]
        for step in set(there) - {*best, there[-1], saved}:
            gone = self._root / f"{step}{TMP}-gone"
            os.rename(self._root / str(step), gone)
            _passing("during_delete")
            shutil.rmtree(gone, ignore_errors=True)

    def _explain(self, step, needed, error):
        """What the user can mend, in one line."""
        where = f"checkpoint of step {step} in {self._root}"
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            free = shutil.disk_usage(self._root).free
            return UserError(
                f"{where}: the disk is full: {needed} bytes needed, {free} free. "
                "Earlier steps are untouched. Free some space."
            )
        reason = " ".join(str(error).split())[:300]
        return UserError(f"{where} was not completed; earlier steps are untouched: {reason}")


def lock(run_dir):
    """Locks the run for this process; a second holder gets a UserError.

    Held until the returned file is closed or the process is gone, however it went.
    """
    path = Path(run_dir) / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise UserError(
            f"{run_dir} is locked by {holder}: wait for it, stop it, or choose another workdir."
        ) from None
    file.truncate(0)
    file.write(f"pid {os.getpid()} since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
    file.flush()
    _locks.append(file)
    return file


def _check_finite(step, leaves):
    """UserError naming a leaf of params or ema with NaN or infinity in it.

    Optimizers may hold infinities by design (the best loss so far), so they may pass.
    """
    for item in set(ITEMS) - {"optimizer", "counters"}:
        for path, x in leaves[item].items():
            bad = integrity.count_non_finite(x)
            if bad:
                raise UserError(
                    f"step {step} is not saved: {'/'.join((item, *path))} has {bad} non-finite "
                    "values; the last good checkpoint stays. Lower optim.lr or check the data."
                )


def _versions():
    """Of what wrote the checkpoint."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name.split("-")[0]] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"  # dpjax, run from its source
    return found
