"""Weights of other libraries as a run folder.

    python -m dpjax.import_weights SRC --run OUT [--task own|pusht|pusht_image|…] \\
        [--observations keypoints=18,agent_pos=2] [--set horizon.act=8 …]

SRC is a checkpoint of the original (.ckpt), or a folder of LeRobot's with a diffusion policy.
OUT is then a run like any other: dpjax.evaluate, validate, sample and export take it, and
config.train.begin_with trains on from it. Nothing in SRC is run; whatever dpjax does not
have, and every tensor that is missing, left over or of another shape, is refused by name.
"""

import argparse
import dataclasses
import hashlib
import json
import logging
import os
from pathlib import Path
import shutil
from typing import Any

import jax
from ml_collections import ConfigDict
import numpy as np
from tqdm import tqdm

from dpjax import tasks
from dpjax.config import build, cameras, dataset, defaults, flags
from dpjax.config.checks import OPEN, check_type, flatten
from dpjax.core.errors import UserError, choices, choose
from dpjax.core.normalizer import Normalizer
from dpjax.core.spec import Spec
from dpjax.core.types import ACTION, Batch, Params
from dpjax.interop import weight_map
from dpjax.interop.chi2023 import checkpoint
from dpjax.interop.imported import Found
from dpjax.interop.lerobot import reader
from dpjax.runs.config_file import restore_tuples, write_config
from dpjax.training.checkpoint import Checkpoints
from dpjax.training.state import TrainState

OBSERVES = {  # what a task's simulator gives
    "pusht": {"keypoints": 18, "agent_pos": 2},
    "pusht_image": {"agent_pos": 2, "image": (96, 96, 3)},
}
CHUNK = 2**24  # bytes read at once for the digest

log = logging.getLogger("dpjax")


def arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dpjax.import_weights", description="Other libraries' weights as a run."
    )
    parser.add_argument("source", help="the original's .ckpt, or a folder of LeRobot's")
    parser.add_argument("--run", required=True, help="the run folder to make; must not exist")
    parser.add_argument("--task", default="own", help="of dpjax/tasks (default own: no simulator)")
    parser.add_argument("--observations", help="names of its numbers: keypoints=18,agent_pos=2")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a config key, such as "
        "horizon.act=8, in the place of what SRC says or where it says nothing",
    )
    given = parser.parse_args(argv)
    usual = {k: n for k, n in OBSERVES.get(given.task, {}).items() if isinstance(n, int)}
    given.observations = observations(given.observations) or usual
    given.set = dict(setting(text) for text in given.set)
    return given


def observations(text: str | None) -> dict[str, int]:
    """ "keypoints=18,agent_pos=2" -> {"keypoints": 18, "agent_pos": 2}."""
    found = {}
    for part in text.split(",") if text else ():
        name, _, size = part.partition("=")
        if not name or not size.isdigit() or not int(size) or name in (*found, ACTION):
            raise UserError(
                f"--observations {text}: expected name=size,…, each once, got {part!r}."
            )
        found[name] = int(size)
    return found


def setting(text: str) -> tuple[str, Any]:
    """ "horizon.act=8" -> ("horizon.act", 8); the value as JSON, or else as text."""
    key, found, value = text.partition("=")
    known = flatten(defaults.get_config().to_dict())
    inside = key.startswith(tuple(f"{name}." for name in OPEN))
    if not found or (key not in known and not inside):
        raise UserError(f"--set {text}: expected key=value; {choices(key, known)}.")
    try:
        value = restore_tuples(json.loads(value))
    except json.JSONDecodeError:
        pass  # text without quotes
    if key in known and not inside:
        example = known[key]
        check_type(key, value, tuple(example) if isinstance(example, list) else example)
    return key, value


def read(source: Path, given: argparse.Namespace) -> Found:
    """Whoever's policy it is."""
    if source.is_dir():
        return reader.read(source, given.observations, given.set)
    if source.suffix in (".safetensors", ".npz") and source.is_file():
        raise UserError(
            f"{source}: one file of a policy: give the folder, with config.json in it. (A ResNet's "
            "weights are for config.encoder.weights in a training.)"
        )
    return checkpoint.read(source, given.observations, given.set)


def config_of(found: Found, given: argparse.Namespace) -> ConfigDict:
    """The config of the run: base.py's, what was found, and what was given; checked."""
    config = defaults.get_config()
    task, config.task = tasks.get(given.task), given.task
    config.denoiser = ConfigDict()
    if not task.columns:
        paths = {key: f"observation/{key}" for key in found.observations}
        config.data.columns = ConfigDict({**paths, ACTION: "action"})
        config.eval.every = 0  # there is no simulator
    settings = {**found.settings, **given.set}
    known = examples(settings["denoiser.name"])
    for key, value in settings.items():
        *sections, last = key.split(".")
        section = config
        for name in sections:
            section = section[name]
        value = restore_tuples(value)
        if key in known:
            check_type(key, value, known[key])
        section[last] = ConfigDict(value) if isinstance(value, dict) else value
    build.check(config)
    return config


def examples(denoiser: str) -> dict[str, Any]:
    """{config key: a value of its type} where the type is known."""
    whole = flatten(defaults.get_config().to_dict())
    found = {key: restore_tuples(x) for key, x in whole.items() if not key.startswith(OPEN)}
    network = choose(build.DENOISERS, denoiser, "config.denoiser.name")
    own = {f"denoiser.{field.name}": field.default for field in dataclasses.fields(network)}
    missing = dataclasses.MISSING
    return {**found, **{key: x for key, x in own.items() if x is not missing and x is not None}}


def check_task(found: Found, given: argparse.Namespace) -> None:
    """Refuses observations that the task's simulator does not give."""
    task = tasks.get(given.task)
    if not task.columns:
        return
    seen = OBSERVES.get(given.task)
    if seen is not None and dict(found.observations) != seen:
        raise UserError(
            f"{found.source}: observations: expected {seen}, as task {given.task!r} gives them, "
            f"got {dict(found.observations)}: give --observations, or --task own."
        )


def shapes_of(config: ConfigDict, spec: Spec, units: Normalizer) -> Params:
    """The policy's params as shapes."""
    policy = build.policy(config, units, spec)
    rows = cameras.rows(spec, dataset.observed_steps(config))
    shape = lambda *size, dtype=np.float32: jax.ShapeDtypeStruct((1, *size), dtype)
    obs = {key: shape(*row.shape, dtype=row.dtype) for key, row in rows.items()}
    steps = config.horizon.predict
    batch = Batch(obs, shape(steps, spec.action), shape(steps), shape(dtype=np.int32))
    return jax.eval_shape(policy.init, jax.random.key(0), batch)


def params_of(found: Found, like: Params, units: Normalizer) -> Params:
    """Our params out of all the tensors that were found; each is in one leaf, each leaf whole."""
    table, ours = [], {}
    for item, make in (("encoder", found.encoder), ("denoiser", found.denoiser)):
        shapes = {path: leaf.shape for path, leaf in weight_map.flatten(like[item]).items()}
        table += [piece._replace(path=(item, *piece.path)) for piece in make(shapes)]
        ours.update({(item, *path): shape for path, shape in shapes.items()})
    made = weight_map.assemble(found.source, table, ours, found.tensors)
    return {"encoder": {}, **made, "normalizer": units}


def write(out: Path, config: ConfigDict, spec: Spec, params: Params, about: dict) -> None:
    """The run folder, under a temporary name until it is whole."""
    temporary = out.with_name(f".{out.name}.importing-{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        write_config(temporary, config, spec)
        state = TrainState(np.int32(0), params, params, np.int32(0), {})
        checkpoints = Checkpoints(temporary)
        try:
            checkpoints.save(state, config=config.to_dict(), extra={"imported": about})
        finally:
            checkpoints.close()
        os.rename(temporary, out)
    except OSError as error:
        raise UserError(f"--run {out}: {error.strerror or error}.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def digest(source: Path) -> str:
    """sha256 of the file, or of all files of the folder, a progress bar for large ones."""
    files = (
        sorted(path for path in source.iterdir() if path.is_file()) if source.is_dir() else [source]
    )
    total, found = sum(path.stat().st_size for path in files), hashlib.sha256()
    with tqdm(total=total, unit="B", unit_scale=True, desc="reading", disable=None) as bar:
        for path in files:
            found.update(path.name.encode() if source.is_dir() else b"")
            with open(path, "rb") as file:
                while part := file.read(CHUNK):
                    found.update(part)
                    bar.update(len(part))
    return found.hexdigest()


def main(argv=None) -> int:
    given = arguments(argv)
    logging.basicConfig(level=logging.WARNING, format="dpjax: %(message)s", force=True)
    source, out = Path(given.source), Path(given.run)
    if out.exists():
        raise UserError(f"--run {out} exists: give a new folder; nothing is overwritten.")
    found = read(source, given)
    check_task(found, given)
    config = config_of(found, given)
    said = digest(source)
    spec = Spec(found.observations, found.action, f"imported, sha256 {said}")
    units = Normalizer(*({key: x[i] for key, x in found.units.items()} for i in (0, 1)))
    params = params_of(found, shapes_of(config, spec, units), units)
    about = {"source": source.name, "sha256": said, "said": found.said}
    write(out, config, spec, params, about)
    for text in found.said:
        log.warning(text)
    count = sum(
        leaf.size for item in ("encoder", "denoiser") for leaf in jax.tree.leaves(params[item])
    )
    print(f"{out}: {count:,} weights of {len(found.tensors)} tensors from {source}")
    return 0


if __name__ == "__main__":
    flags.run(main)
