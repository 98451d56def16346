"""Writes a run as one StableHLO file with its weights, which samples actions without dpjax.

    python -m dpjax.export --run runs/demo [--out policy.stablehlo] [--platforms cpu,cuda,tpu]

`dpjax.load_exported` reads the file. The JSON beside it describes the inputs and the output. If
the platforms are cpu alone (the default), the large weights are transposed as in
`Run.inference_params`, which gives the same actions faster.
"""

import argparse
from collections.abc import Sequence
import hashlib
import json
from pathlib import Path
import time
from typing import Any

import jax
import jax.export
import numpy as np

from dpjax.config import build, cameras
from dpjax.config.components import SAMPLERS
from dpjax.core import files
from dpjax.core.errors import UserError
from dpjax.evaluation import provenance
from dpjax.inference.exported import KEY_WORDS
from dpjax.ops import transposed
from dpjax.runs import outputs
from dpjax.runs.run import Run, load

# Those that jax.export can compile for.
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
NAME = "policy.stablehlo"  # the file's name if --out is a folder


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command-line arguments; `platforms` as a list."""
    parser = argparse.ArgumentParser(
        prog="python -m dpjax.export",
        description="Write a run as one StableHLO file. `python -m dpjax.export lerobot` writes "
        "a folder of LeRobot's instead.",
    )
    parser.add_argument("--run", required=True, help="a run folder, or a shipped policy")
    parser.add_argument("--out", help=f"a .stablehlo file, or a folder (default: {NAME} in --run)")
    parser.add_argument("--steps", type=int, help="sampling steps S (default: the run's)")
    parser.add_argument("--sampler", choices=sorted(SAMPLERS), help="default: the run's")
    parser.add_argument(
        "--batch",
        type=int,
        help="largest number of observations per call (default: any number; a number of 64 or "
        "more makes the file faster)",
    )
    parser.add_argument("--platforms", default="cpu", help=f"of {','.join(PLATFORMS)}")
    args = parser.parse_args(argv)
    # argparse checks types but not ranges.
    for name in ("batch", "steps"):
        number = getattr(args, name)
        if number is not None and number < 1:
            raise UserError(f"--{name} {number} must be at least 1.")
    # argparse has no type for a list with commas.
    args.platforms = args.platforms.split(",")
    if unknown := sorted(set(args.platforms) - set(PLATFORMS)):
        raise UserError(f"--platforms: {unknown[0]!r} is unknown; choose of {','.join(PLATFORMS)}.")
    # Any other ending is probably a format that dpjax does not write.
    if names_file(args.out) and not args.out.endswith(".stablehlo"):
        raise UserError(f"--out {args.out}: give a file ending in .stablehlo, or a folder.")
    return args


def names_file(out: str | None) -> bool:
    """Whether --out is a file and not a folder."""
    # A folder's name may contain a dot, so an existing folder counts as one.
    return out is not None and Path(out).suffix != "" and not Path(out).is_dir()


def write(run_name: str, out: str | None, data: bytes, description: dict[str, Any]) -> Path:
    """Writes the file and the JSON beside it; returns the path of the file.

    Without --out the file is policy.stablehlo in the run's folder.
    """
    # An OSError, such as a missing permission or a full disk, is reported in one line.
    try:
        path = Path(out) if names_file(out) else outputs.output_folder(run_name, out) / NAME
        path.parent.mkdir(parents=True, exist_ok=True)
        # The program is written first, so that no JSON file exists without its program.
        files.write_atomically(path, data)
        text = json.dumps(description, indent=2) + "\n"
        files.write_atomically(path.with_suffix(".json"), text)
    except OSError as error:
        raise UserError(f"--out {out or run_name}: {error.strerror or error}.") from error
    return path


def input_shapes(run: Run, batch: Any) -> tuple:
    """Shapes and dtypes of the inputs: words of the keys, observations[, previous[, committed]].

    batch: a number, or jax's symbol for any number.
    """
    # Observations: [B, To, …] for each key.
    shape = lambda dtype, *sizes: jax.ShapeDtypeStruct((batch, *sizes), dtype)
    observations = cameras.observation_shapes(run.spec, run.config.horizon.obs)
    obs = {name: shape(leaf.dtype, *leaf.shape) for name, leaf in observations.items()}
    # The previous chunk is an input only if sampling reads it: [B, Tp, Da]. The committed steps [B]
    # are numbers and not constants, so that one program serves all delays.
    inputs = [shape(np.uint32, KEY_WORDS), obs]
    if build.takes_previous(run.config):
        inputs.append(shape(np.float32, run.config.horizon.predict, run.spec.action))
    if build.takes_committed(run.config):
        inputs.append(shape(np.int32))
    return tuple(inputs)


def export(run: Run, batch: int | None, platforms: Sequence[str]) -> jax.export.Exported:
    """The program `(words, obs[, previous[, committed]]) -> actions`, with the run's params inside.

    batch: the number of observations per call; None for any number. Keys are passed as their
    words, uint32 [B, 2], because StableHLO has no type for keys.
    """
    # `sample_actions` closes over the params, which makes them constants of the program.
    params = transposed.inference_params(run.params, platforms, run.config.compute.kernels)

    def sample_actions(words, obs, *optional):
        # Not jax's default, which a user may configure: the file must always read the same.
        keys = jax.random.wrap_key_data(words, impl="threefry2x32")
        return run.policy.sample(params, keys, obs, *optional)

    # With a symbol as the batch size, the program accepts every batch size.
    size = batch or jax.export.symbolic_shape("batch")[0]
    program = jax.jit(sample_actions)
    return jax.export.export(program, platforms=platforms)(*input_shapes(run, size))


def describe(run: Run, args: argparse.Namespace, data: bytes) -> dict[str, Any]:
    """The JSON beside the file.

    data: the file's content.
    """
    horizon = run.config.horizon
    batch = args.batch or "batch"
    # The first axis is the batch, which has a name if its size is open.
    describe_leaf = lambda leaf: {"shape": [batch, *leaf.shape[1:]], "dtype": str(leaf.dtype)}
    inputs = [jax.tree.map(describe_leaf, leaf) for leaf in input_shapes(run, 1)]
    # The chunk begins with the oldest observed step; execution begins with the newest.
    first = horizon.obs - 1
    # Other programs read this format, so keys may be added but never renamed.
    return {
        "run": str(args.run),
        "checkpoint": run.step,
        "task": run.config.task,
        "columns": run.config.data.columns.to_dict(),  # {column: path inside an RLDS step}
        "sampler": f"{run.config.sampler.name}-{run.config.sampler.num_steps}",
        "batch": args.batch,
        "platforms": args.platforms,
        "inputs": dict(zip(("keys", "obs", "previous", "committed"), inputs)),
        "output": {"shape": [batch, horizon.predict, run.spec.action], "dtype": "float32"},
        "observed": horizon.obs,
        "predicted": horizon.predict,
        "executed": horizon.act,
        "executed_steps": [first, first + horizon.act],  # of the output, the end excluded
        # Numbers of an observation beyond these are far outside of the training data; null: any.
        "trained_ranges": {
            name: [[float(x) if np.isfinite(x) else None for x in limit] for limit in pair]
            for name, pair in run.compiled.far.ranges.items()
        },
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Exports the run and writes the file and the JSON beside it."""
    args = parse(argv)
    run = load(args.run, sampler=args.sampler, steps=args.steps)
    # The time of the export alone, after the checkpoint has been read.
    start = time.perf_counter()
    data = bytes(export(run, args.batch, args.platforms).serialize())
    # The description contains the digest of the data, so it comes last.
    path = write(args.run, args.out, data, describe(run, args, data))
    seconds = time.perf_counter() - start
    platforms = ", ".join(args.platforms)
    print(f"{path}: {len(data) / 2**20:.1f} MiB for {platforms}, {seconds:.1f} s")
    return 0
