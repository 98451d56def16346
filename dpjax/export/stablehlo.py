"""A run as one file that acts without dpjax's networks: StableHLO, weights inside.

    python -m dpjax.export --run runs/demo [--out policy.stablehlo] [--platforms cpu,cuda,tpu]

`dpjax.exported.load` reads it; the JSON beside it says what goes in and what comes out. For
CPUs alone (the default) the weights are turned, see `build.acting`: faster there, and the same.
"""

import argparse
import hashlib
import json
import os
from pathlib import Path
import time

import jax
import jax.export
import numpy as np

from dpjax.config import build, cameras
from dpjax.core.errors import UserError
from dpjax.evaluation import provenance
from dpjax.inference.exported import KEY_WORDS
from dpjax.runs import run as run_lib

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


def arguments(argv=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m dpjax.export", description="Write a run as one StableHLO file."
    )
    parser.add_argument("--run", required=True, help="run folder that dpjax.train made")
    parser.add_argument(
        "--out", help="a .stablehlo file, or a folder (default: policy.stablehlo in the run's)"
    )
    parser.add_argument("--steps", type=int, help="sampling steps S (default: the run's)")
    parser.add_argument("--sampler", choices=sorted(build.SAMPLERS), help="default: the run's")
    any_number = "rows at once (default: any number; where it is 64 or more, say it: faster)"
    parser.add_argument("--batch", type=int, help=any_number)
    parser.add_argument("--platforms", default="cpu", help=f"of {','.join(PLATFORMS)}")
    given = parser.parse_args(argv)
    for name in ("batch", "steps"):
        if getattr(given, name) is not None and getattr(given, name) < 1:
            raise UserError(f"--{name} {getattr(given, name)} must be at least 1.")
    given.platforms = given.platforms.split(",")
    if wrong := sorted(set(given.platforms) - set(PLATFORMS)):
        raise UserError(f"--platforms: {wrong[0]!r} is unknown; choose of {','.join(PLATFORMS)}.")
    return given


def path_of(given: argparse.Namespace) -> Path:
    """The file to write: --out, or policy.stablehlo in that folder."""
    out = Path(given.out or given.run)
    if out.suffix == ".stablehlo" and not out.is_dir():
        return out
    if out.suffix and not out.is_dir():
        raise UserError(f"--out {out}: give a file ending in .stablehlo, or a folder.")
    return out / "policy.stablehlo"


def inputs(run: run_lib.Run, batch) -> tuple:
    """Shapes and dtypes of what the program takes: words of the keys, obs[, previous]."""
    shape = lambda dtype, *rest: jax.ShapeDtypeStruct((batch, *rest), dtype)
    rows = cameras.rows(run.spec, run.config.horizon.obs)
    obs = {name: shape(row.dtype, *row.shape) for name, row in rows.items()}
    taken = [shape(np.uint32, KEY_WORDS), obs]
    if run.config.sampler.warm_start:
        taken.append(shape(np.float32, run.config.horizon.predict, run.spec.action))
    return tuple(taken)


def export(run: run_lib.Run, batch: int | None, platforms) -> jax.export.Exported:
    """`(words, obs[, previous]) -> actions`, the run's params inside. batch: None for any."""
    params = build.acting(run.params, platforms)

    def act(words, obs, *previous):
        keys = jax.random.wrap_key_data(words, impl="threefry2x32")
        return run.policy.sample(params, keys, obs, *previous)

    batch = batch or jax.export.symbolic_shape("batch")[0]
    return jax.export.export(jax.jit(act), platforms=platforms)(*inputs(run, batch))


def about(run: run_lib.Run, given: argparse.Namespace, data: bytes) -> dict:
    """The JSON beside the file."""
    horizon, rows = run.config.horizon, given.batch or "batch"
    say = lambda leaf: {"shape": [rows, *leaf.shape[1:]], "dtype": str(leaf.dtype)}
    taken = [jax.tree.map(say, leaf) for leaf in inputs(run, 1)]
    first = horizon.obs - 1
    return {
        "run": str(given.run),
        "checkpoint": run.step,
        "task": run.config.task,
        "sampler": f"{run.config.sampler.name}-{run.config.sampler.num_steps}",
        "batch": given.batch,
        "platforms": given.platforms,
        "inputs": dict(zip(("keys", "obs", "previous"), taken)),
        "output": {"shape": [rows, horizon.predict, run.spec.action], "dtype": "float32"},
        "observed": horizon.obs,
        "predicted": horizon.predict,
        "executed": horizon.act,
        "executed_steps": [first, first + horizon.act],  # of the output, the end not included
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "versions": provenance.versions(),
        "commit": provenance.commit(),
    }


def main(argv=None) -> int:
    given = arguments(argv)
    path = path_of(given)
    run = run_lib.load(given.run, sampler=given.sampler, steps=given.steps)
    start = time.perf_counter()
    data = bytes(export(run, given.batch, given.platforms).serialize())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        description = json.dumps(about(run, given, data), indent=2) + "\n"
        for target, content in ((path, data), (path.with_suffix(".json"), description.encode())):
            temporary = target.with_name(target.name + ".tmp")
            temporary.write_bytes(content)
            os.replace(temporary, target)
    except OSError as error:
        raise UserError(f"--out {path}: {error.strerror or error}.") from error
    seconds = time.perf_counter() - start
    print(f"{path}: {len(data) / 2**20:.1f} MiB for {', '.join(given.platforms)}, {seconds:.1f} s")
    return 0
