"""Makes a run folder from another library's weights.

    python -m dpjax.import_weights SRC --run OUT [--task custom|pusht|pusht_image|…] \\
        [--observations keypoints=18,agent_pos=2] [--set horizon.act=8 …]

SRC is a checkpoint of Chi et al.'s code (.ckpt), or a folder with a diffusion policy of LeRobot.
OUT becomes a run like any other: dpjax.evaluate, validate, sample and export take it, and with
config.train.init_from a training starts from its weights. No code in SRC is executed. A setting
that dpjax does not support raises an error that names it, and so does each tensor that is missing,
left over or of another shape.
"""

import argparse
from collections.abc import Iterator
import contextlib
import json
import logging
from pathlib import Path
from typing import Any

import jax

from dpjax import tasks
from dpjax.config import defaults, flags, renamed
from dpjax.config.defaults import OPEN
from dpjax.config.keys import check_type, flatten
from dpjax.core.errors import UserError, choices
from dpjax.core.spec import Spec
from dpjax.core.types import ACTION
from dpjax.interop.imported import ImportedPolicy
from dpjax.runs import imported_run
from dpjax.runs.config_file import restore_tuples

# What a policy observes in the tasks with a simulator: {name: size, or the shape of an image}.
OBSERVATIONS = {
    "pusht": {"keypoints": 18, "agent_pos": 2},
    "pusht_image": {"agent_pos": 2, "image": (96, 96, 3)},
}

log = logging.getLogger("dpjax")


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """The command-line arguments; `observations` and `set` as dicts."""
    parser = argparse.ArgumentParser(
        prog="python -m dpjax.import_weights", description="Other libraries' weights as a run."
    )
    parser.add_argument("source", help="a .ckpt of Chi et al.'s code, or a folder of LeRobot's")
    parser.add_argument("--run", required=True, help="the run folder to make; must not exist")
    parser.add_argument(
        "--task", default="custom", help="a task of dpjax (default custom: without a simulator)"
    )
    parser.add_argument(
        "--observations", help="names and sizes of its numbers: keypoints=18,agent_pos=2"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a config key, such as horizon.act=8, that replaces what SRC says or does not say",
    )
    args = parser.parse_args(argv)
    # Checked here, before a large file is read.
    args.task = task_named(args.task)
    # Without --observations, the numbers are those of the task's simulator. Images have their names
    # in the source.
    usual = OBSERVATIONS.get(args.task, {})
    numbers = {key: size for key, size in usual.items() if isinstance(size, int)}
    args.observations = parse_observations(args.observations) or numbers
    args.set = dict(parse_setting(text) for text in args.set)
    return args


def task_named(name: str) -> str:
    """The present name of a task; raises UserError if there is no such task."""
    # `tasks.get` knows former names too; the new run's config should hold the present one.
    with names_options():
        tasks.get(name)
    present = renamed.new_value("task", name)
    if present != name:
        log.warning("task %r is now %r: the old name works in this release only", name, present)
    return present


def parse_observations(text: str | None) -> dict[str, int]:
    """ "keypoints=18,agent_pos=2" -> {"keypoints": 18, "agent_pos": 2}."""
    sizes = {}
    for part in text.split(",") if text else ():
        name, _, size = part.partition("=")
        if not name or not size.isdigit() or not int(size) or name in (*sizes, ACTION):
            raise UserError(
                f"--observations {text}: expected name=size,…, each once, got {part!r}."
            )
        sizes[name] = int(size)
    return sizes


def parse_setting(text: str) -> tuple[str, Any]:
    """ "horizon.act=8" -> ("horizon.act", 8). A value that is not JSON is text."""
    key, equals, value = text.partition("=")
    # A key must exist, or belong to a section whose keys are the user's own.
    known = flatten(defaults.get_config().to_dict())
    is_open = key.startswith(tuple(f"{name}." for name in OPEN))
    if not equals or (key not in known and not is_open):
        raise UserError(f"--set {text}: expected key=value; {choices(key, known)}.")
    try:
        value = restore_tuples(json.loads(value))  # JSON has lists, the config tuples
    except json.JSONDecodeError:
        pass  # text without quotes
    # Types are checked before the source is read, ranges with the complete config.
    if key in known and not is_open:
        check_type(key, value, restore_tuples(known[key]))
    return key, value


@contextlib.contextmanager
def names_options() -> Iterator[None]:
    """Rewrites errors about the arguments task and observations to name the command's options."""
    # Such as task='push' -> --task 'push'.
    try:
        yield
    except UserError as error:
        if error.argument not in ("task", "observations"):
            raise
        option = str(error).replace(f"{error.argument}=", f"--{error.argument} ", 1)
        raise UserError(option) from error


def read_policy(args: argparse.Namespace) -> ImportedPolicy:
    """The policy in the source, with the observations of the task's simulator."""
    with names_options():
        policy = imported_run.read(Path(args.source), args.observations, args.set)
    # A simulator gives fixed observations; a task without one takes those of the checkpoint.
    expected = OBSERVATIONS.get(args.task, policy.observations)
    if policy.observations != expected:
        raise UserError(
            f"{policy.source}: observations: expected {expected}, as task {args.task!r} gives "
            f"them, got {policy.observations}: give --observations, or --task custom."
        )
    return policy


def main(argv: list[str] | None = None) -> int:
    """Reads the policy, builds its config and params, and writes the run folder."""
    args = parse(argv)
    source = Path(args.source)
    out = Path(args.run)
    if out.exists():
        raise UserError(f"--run {out} exists: give a new folder; nothing is overwritten.")

    # 1. Read the policy. The warnings are kept in the checkpoint, beside the source and its digest.
    with imported_run.recorded_warnings() as warnings:
        policy = read_policy(args)
    # 2. Make the parts of a run. In place of the training data's fingerprint it has the digest.
    sha256 = imported_run.digest(source)
    # What a training would have made: a config, the spec of the data, params.
    config = imported_run.config_for(policy, args.task, args.set)
    spec = Spec(policy.observations, policy.action_size, f"imported, sha256 {sha256}")
    params = imported_run.params_for(policy, config, spec)
    # 3. Write the folder. The key "said" is part of the file format.
    imported = {"source": source.name, "sha256": sha256, "said": warnings}
    imported_run.write(out, config, spec, params, imported)

    # 4. Print one line, with the size of the policy.
    leaves = jax.tree.leaves([params["encoder"], params["denoiser"]])
    count = sum(leaf.size for leaf in leaves)
    print(f"{out}: {count:,} weights of {len(policy.tensors)} tensors from {source}")
    return 0


if __name__ == "__main__":
    flags.run(main)
