"""What `dpjax.serve` serves: a run, or an exported file, which needs neither flax nor a config."""

import argparse
from collections.abc import Callable, Hashable
import datetime
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

import dpjax
from dpjax import tasks
from dpjax.core.errors import UserError
from dpjax.inference import exported
from dpjax.inference.trained_range import FarObservations
from dpjax.serving.batching import Version
from dpjax.serving.contract import Contract

if TYPE_CHECKING:
    from dpjax.runs.run import Run


class Source(NamedTuple):
    """A policy that can be served, and where newer versions of it appear.

    name: for people. version: what is served first; current: its name, as `newest` names it.
    newest: () -> name of the newest version there is; None if there is none.
    load: name -> that version, verified; raises UserError if it must not be served.
    max_batch: the only batch size that the policy can be called with; None for any.
    """

    name: str
    contract: Contract
    version: Version
    current: Hashable
    newest: Callable[[], Hashable | None]
    load: Callable[[Any], Version]
    max_batch: int | None = None


def from_run(args: argparse.Namespace) -> Source:
    """A run folder, or a shipped policy, by the arguments of `dpjax.serve`."""
    # Imported here: they need flax and the libraries of checkpoints.
    from dpjax.runs import outputs
    from dpjax.runs import run as runs
    from dpjax.training.checkpoint import layout

    if args.follow and outputs.shipped_folder(args.run) is not None:
        raise UserError(f"--follow: {args.run} comes with dpjax and has no newer checkpoints.")
    if args.follow and args.checkpoint is not None:
        raise UserError("--follow serves the newest checkpoint: leave out --checkpoint.")
    load = lambda step: runs.load(
        args.run,
        sampler=args.sampler,
        steps=args.steps,
        warm_start=args.warm_start,
        agree=args.agree,
        which=args.weights,
        step=step,
    )
    run = load(args.checkpoint)
    contract = _contract_of_run(run)

    def load_newer(step: int) -> Version:
        newer = load(step)
        # A folder can be replaced by another run, and its clients would send the wrong things.
        if newer.spec != run.spec or newer.config != run.config:
            raise UserError("its config or its data are not those of the served run")
        # Programs take the params as an argument, so those that are compiled serve it too.
        return _version_of_run(newer._replace(compiled=run.compiled))

    def newest() -> int | None:
        # Only those that look complete; the arrays are verified when one is loaded.
        steps = layout.steps(args.run)
        return steps[-1] if steps else None

    return Source(args.run, contract, _version_of_run(run), run.step, newest, load_newer)


def _contract_of_run(run: "Run") -> Contract:
    """What clients of a run must send."""
    from dpjax.config import cameras

    # The spec holds what the policy observes, after `observe`; clients send what is before it.
    horizon = run.config.horizon
    task = run.task
    return Contract(
        columns=tasks.observed_columns(task, [*run.spec.observations]),
        observe=task.observe,
        obs_shapes=cameras.observation_shapes(run.spec, horizon.obs),
        action=run.spec.action,
        predicted=horizon.predict,
        executed=horizon.act,
        names={path: column for column, path in run.config.data.columns.items()},
    )


def _version_of_run(run: "Run") -> Version:
    """A run's policy, without the params that only training needs."""
    # Only these two are kept: the run also holds the params in the layout of the training.
    compiled = run.compiled
    params = run.inference_params

    def sample_actions(keys: jax.Array, obs: dict, *optional: Any) -> np.ndarray:
        return compiled(params, keys, obs, *optional)

    # The digest says which weights answer, whatever folder they are in.
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(params):
        digest.update(np.asarray(leaf).tobytes())
    about = {
        "dpjax": dpjax.__version__,
        "task": run.config.task,
        "sampler": f"{run.config.sampler.name}-{run.config.sampler.num_steps}",
        "checkpoint": run.step,
        "digest": digest.hexdigest()[:16],
    }
    warm_up = lambda sizes: compiled.compile(params, sizes)
    return Version(sample_actions, warm_up, about, **_far(compiled.far))


def from_exported(args: argparse.Namespace) -> Source:
    """A file of `dpjax.export`, by the arguments of `dpjax.serve`."""
    for flag in ("steps", "sampler", "warm_start", "checkpoint"):
        if getattr(args, flag) is not None:
            flag = flag.replace("_", "-")
            raise UserError(f"--{flag} belongs to --run: an exported file has one program.")
    path = Path(args.exported)
    # The digest of the program is compared with the .json beside it.
    policy = exported.load(path)
    contract = _contract_of_exported(policy)

    def load_newer(name: str) -> Version:
        newer = exported.load(path)
        same = ("inputs", "output", "observed", "executed", "task", "batch")
        if any(newer.about[key] != policy.about[key] for key in same):
            raise UserError("its inputs or outputs are not those of the served file")
        return _version_of_exported(newer)

    def newest() -> str | None:
        # The .json is written last, after the program that it describes.
        about = (path / "policy" if path.is_dir() else path).with_suffix(".json")
        try:
            written = datetime.datetime.fromtimestamp(about.stat().st_mtime)
        except OSError:
            return None  # it is being replaced
        return f"{path} of {written}"

    version = _version_of_exported(policy)
    current = newest() or str(path)
    return Source(str(path), contract, version, current, newest, load_newer, policy.about["batch"])


def _contract_of_exported(policy: exported.Exported) -> Contract:
    """What clients of an exported policy must send."""
    # The .json has the shapes with the batch as their first axis.
    about = policy.about
    task = tasks.get(about["task"])
    inputs = about["inputs"]["obs"]
    shapes = {
        name: jax.ShapeDtypeStruct(tuple(entry["shape"][1:]), np.dtype(entry["dtype"]))
        for name, entry in inputs.items()
    }
    return Contract(
        columns=tasks.observed_columns(task, [*inputs]),
        observe=task.observe,
        obs_shapes=shapes,
        action=about["output"]["shape"][2],
        predicted=about["predicted"],
        executed=about["executed"],
        # Files of before this key have none: the columns' own names work.
        names={path: column for column, path in about.get("columns", {}).items()},
    )


def _version_of_exported(policy: exported.Exported) -> Version:
    """An exported policy as a version."""
    about = {
        "dpjax": dpjax.__version__,
        "task": policy.about["task"],
        "sampler": policy.about["sampler"],
        "checkpoint": policy.about["checkpoint"],
        "digest": policy.about["sha256"][:16],
    }
    return Version(policy, policy.warm_up, about, **_far(policy.far))


def _far(far: FarObservations) -> dict[str, Any]:
    """What a version says about observations far outside of the training data."""
    return {"ranges": far.ranges, "far": lambda: far.counts}


def check_delay(source: Source, delay: int) -> None:
    """Raises UserError if the chunks are too short for a delay of this many control steps."""
    contract = source.contract
    last = contract.observed - 1 + delay + contract.executed
    if delay and (delay > contract.executed or last > contract.predicted):
        longest = min(contract.executed, contract.predicted - contract.observed + 1)
        longest = min(longest, contract.predicted - contract.observed + 1 - contract.executed)
        raise UserError(
            f"--delay {delay}: chunks of Tp = {contract.predicted} steps with Ta = "
            f"{contract.executed} executed allow at most {max(longest, 0)}.",
            argument="delay",
        )
