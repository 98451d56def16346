"""Writes a run as one graph of standard ONNX nodes, or in OpenVINO's form of it.

    python -m dpjax.export onnx --run R [--out policy.onnx]
    python -m dpjax.export openvino --run R [--out policy.xml]     and policy.bin beside it

Before anything is written, the graph's actions are compared with dpjax's, for the same noise.
"""

import argparse
from collections.abc import Sequence
import json
from pathlib import Path

import numpy as np

from dpjax.config.components import SAMPLERS
from dpjax.core import files
from dpjax.core.errors import UserError
from dpjax.core.extras import require
from dpjax.core.types import ACTION
from dpjax.evaluation import provenance
from dpjax.export import onnx_graph, onnx_runtimes
from dpjax.export.onnx_plan import reference
from dpjax.runs import outputs
from dpjax.runs.run import Run, load

ENDINGS = {"onnx": ".onnx", "openvino": ".xml"}
EXAMPLES = 16  # observations that the two are compared for
LARGEST = 1e-4  # difference that is allowed, in network units


def parse(form: str, argv: Sequence[str] | None) -> argparse.Namespace:
    """The command-line arguments."""
    parser = argparse.ArgumentParser(
        prog=f"python -m dpjax.export {form}", description="Write a run as one graph."
    )
    ending = ENDINGS[form]
    parser.add_argument("--run", required=True, help="a run folder, or a shipped policy")
    parser.add_argument("--out", help=f"a file (default: policy{ending} in --run)")
    parser.add_argument("--steps", type=int, help="sampling steps S (default: the run's)")
    parser.add_argument("--sampler", choices=sorted(SAMPLERS), help="default: the run's")
    parser.add_argument("--warm-start", type=float, help="0 leaves the run's warm start out")
    args = parser.parse_args(argv)
    if args.steps is not None and args.steps < 1:
        raise UserError(f"--steps {args.steps} must be at least 1.")
    if args.out and not args.out.endswith(ending):
        raise UserError(f"--out {args.out}: give a file ending in {ending}.")
    return args


def metadata_of(run: Run, name: str) -> dict[str, str]:
    """{key: JSON} that the file holds."""
    horizon = run.config.horizon
    first = horizon.obs - 1  # the chunk begins with the oldest observed step
    facts = {
        "run": name,
        "checkpoint": run.step,
        "task": run.config.task,
        "sampler": f"{run.config.sampler.name}-{run.config.sampler.num_steps}",
        "observations": run.spec.observations,
        "action": run.spec.action,
        "observed": horizon.obs,
        "predicted": horizon.predict,
        "executed": horizon.act,
        "executed_steps": [first, first + horizon.act],  # of the output, the end excluded
        "units": "data",
        "commit": provenance.commit(),
    }
    return {key: json.dumps(value) for key, value in facts.items()}


def difference(form: str, run: Run, model: bytes, noise_shape: tuple[int, ...]) -> float:
    """The largest difference of the file's actions from dpjax's, in network units."""
    rng = np.random.default_rng(0)
    units = run.params["normalizer"]
    # Observations within the training data's range: ± 1 in network units.
    draw = lambda size: rng.uniform(-1, 1, (EXAMPLES, run.config.horizon.obs, size))
    obs = {
        key: np.asarray(units.restore(key, np.float32(draw(size))))
        for key, size in run.spec.numbers.items()
    }
    steps, *shape = noise_shape
    noise = rng.normal(size=(steps, EXAMPLES, *shape)).astype(np.float32)
    got = onnx_runtimes.RUNTIMES[form](model)(noise, obs)
    want = reference(run.config, run.spec, run.params)(noise, obs)
    normalize = lambda actions: np.asarray(units.normalize({ACTION: actions})[ACTION])
    return float(np.abs(normalize(got) - normalize(want)).max())


def write(form: str, path: Path, model: bytes, metadata: dict[str, str]) -> None:
    """Writes the file, for OpenVINO with the weights beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "onnx":
        files.write_atomically(path, model)
        return
    graph = onnx_runtimes.openvino_model(model)
    for key, text in metadata.items():
        graph.set_rt_info(text, ["dpjax", key])
    # Its default halves the precision of the weights.
    require("openvino", "edge").save_model(graph, str(path), compress_to_fp16=False)


def main(form: str, argv: Sequence[str] | None = None) -> int:
    """Builds the graph, compares it with dpjax, and writes it."""
    args = parse(form, argv)
    run = load(args.run, sampler=args.sampler, steps=args.steps, warm_start=args.warm_start)
    metadata = metadata_of(run, args.run)
    graph, plan = onnx_graph.build_graph(run.config, run.spec, run.params, metadata)
    model = graph.SerializeToString()
    worst = difference(form, run, model, plan.noise_shape)
    if not worst <= LARGEST:  # NaN too
        raise UserError(
            f"--run {args.run}: the graph's actions differ by {worst:.1e} in network units from "
            f"dpjax's, allowed are {LARGEST:g}: nothing is written; use another --sampler."
        )
    ending = ENDINGS[form]
    try:
        folder = None if args.out else outputs.output_folder(args.run, None)
        path = Path(args.out) if folder is None else folder / f"policy{ending}"
        write(form, path, model, metadata)
    except OSError as error:
        raise UserError(f"--out {args.out or args.run}: {error.strerror or error}.") from error
    size = len(model) / 2**20
    print(f"{path}: {size:.1f} MiB, {worst:.1e} from dpjax at most (in network units)")
    return 0
