"""What each trick for CPUs gains in whole training steps and whole sampled action chunks.

    python -m experiments.cpu.tricks [--only train_small] [--rounds 6]

A process per trick computes a case without that trick, and one computes it with all of them;
they take turns. The gain is the median, over the rounds, of the time without the trick over the
time with it. Stop other work meanwhile. Writes tricks.json and prints a table.

--rounds 0 compiles everything into dpjax's compilation cache, and measures nothing: afterwards a
measurement takes less than ten minutes.
"""

import argparse
from collections.abc import Callable
import json
from pathlib import Path
import sys
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from dpjax.config import build, dataset, recipes
from dpjax.core import errors, runtime
from dpjax.core.errors import UserError
from dpjax.core.spec import Spec
from dpjax.evaluation import provenance
from dpjax.ops import conv1d, conv2d, group_norm, transposed, winograd
from experiments import synthetic
from experiments.throughput import cases, ours, worker
from experiments.throughput.sides import Side

HERE = Path(__file__).parent
ALL = "all tricks"
UPSAMPLE = conv1d.upsample_matmul
STEPS_PER_CALL = 2  # optimizer steps; more would only make the slow processes wait


def neighbours_or_xla(x, kernel, stride: int, padding: int):
    """`conv1d.conv_neighbours` for transposed kernels, which XLA's convolution cannot take."""
    if isinstance(kernel, transposed.Transposed):
        columns = conv1d.neighbours(x, kernel.shape[0], stride, padding)
        return transposed.dot(columns, kernel)
    return conv1d.conv_xla(x, kernel, stride, padding)


def upsample_or_xla(x, kernel):
    """`conv1d.upsample_matmul` for transposed kernels alone."""
    form = UPSAMPLE if isinstance(kernel, transposed.Transposed) else conv1d.upsample_xla
    return form(x, kernel)


def tiles_or_xla(x, kernel, stride: int, padding: int):
    """`conv2d.conv_cpu` with no other form than tiles."""
    if conv2d.is_tiled(x, kernel, stride, padding):
        return jax.checkpoint(conv2d.conv_tiles)(x, kernel)
    return conv2d.conv_xla(x, kernel, stride, padding)


class Trick(NamedTuple):
    """A trick, and how a process does without it: attributes that get other values.

    attributes: {(module, name): value in place of it}.
    """

    what: str
    attributes: dict


def products_in_any_order(rows: int, steps: list, kernels: list) -> list:
    """`winograd.pointwise_products` without its order of gradients."""
    del rows
    return list(map(transposed.dot, steps, kernels))


TRICKS = {
    "tiles": Trick("fewer products along time, in tiles (winograd)", {(conv1d, "TILED_SIZES"): ()}),
    "order": Trick(
        "order of the tiles' gradients, a barrier",
        {(winograd, "pointwise_products"): products_in_any_order},
    ),
    "fence": Trick(
        "gradient of a tile computed once, a barrier",
        {(winograd, "fence_gradient"): lambda y: y},
    ),
    "row": Trick("a 65th row of zeros", {(winograd, "SINGLE_THREAD_ROWS"): -1}),
    "taps": Trick("one product per tap, for large kernels", {(conv1d, "LARGE_KERNEL"): 2**62}),
    "neighbours": Trick(
        "neighbours side by side, in place of XLA's convolution",
        {
            (conv1d, "conv_neighbours"): neighbours_or_xla,
            (conv1d, "upsample_matmul"): upsample_or_xla,
        },
    ),
    "transposed": Trick(
        "transposed weights", {(transposed, "inference_params"): lambda params, *_: params}
    ),
    "norm": Trick("our group norm", {(group_norm, "group_norm_fast"): group_norm.group_norm_xla}),
    "two axes": Trick(
        "dense layers as products of two matrices", {(transposed, "matmul_2d"): lambda x, w: x @ w}
    ),
    "images": Trick("fewer products in images, in tiles", {(conv2d, "is_tiled"): lambda *_: False}),
    "small images": Trick(
        "small images by taps, shortcuts as products", {(conv2d, "conv_cpu"): tiles_or_xla}
    ),
    "pooling": Trick(
        "max pooling's gradient of shifted copies",
        {(conv2d, "max_pool_shifted"): conv2d.max_pool_xla},
    ),
    "barriers": Trick(
        "optimization barriers that hold", {(runtime, "compiler_options"): lambda: None}
    ),
    "memory": Trick("memory kept between calls", {(runtime, "keep_memory"): lambda: None}),
    "libraries": Trick(
        "2-D convolutions by Eigen, not YNNPACK", {(runtime, "choose_libraries"): lambda: None}
    ),
}

# {name: (case, tricks that its programs hold)}. The small U-Net's training is the gate's case.
CASES = {
    "train_small": (
        cases.training("unet_small"),
        ("tiles", "order", "fence", "row", "neighbours", "norm", "barriers", "memory"),
    ),
    "train_large": (cases.training("unet_65m"), ("taps", "tiles", "order")),
    "train_image": (
        dict(name="train_image_small", kind="train", recipe="pusht_image_small"),
        ("images", "small images", "pooling", "norm", "barriers", "memory", "libraries"),
    ),
    "train_transformer": (cases.training("transformer"), ("two axes",)),
    "sample_small": (
        cases.sampling("unet_small", "ddpm", 100, 1),
        ("neighbours", "transposed", "norm", "memory"),
    ),
    "sample_large": (cases.sampling("unet_65m", "ddim", 10, 1), ("transposed",)),
}


def configured(case: dict):
    """(config, spec) of a case of experiments.throughput, or of a recipe with a camera."""
    if "recipe" not in case:
        return ours.configured(case)
    return recipes.load(case["recipe"]), Spec({"image": (96, 96, 3), "agent_pos": 2}, 2, "")


def prepare(case: dict) -> tuple[Callable, dict]:
    """(call, facts) for `worker.serve`."""
    config, spec = configured(case)
    data = synthetic.windows(config, spec)
    policy = build.policy(config, synthetic.normalizer(spec), spec)
    example = dataset.batch_of(data, np.arange(config.train.batch, dtype=np.int32))
    params = jax.jit(policy.init)(jax.random.key(0), example)
    if case["kind"] == "train":
        return ours.trainer(config, policy, params, data, STEPS_PER_CALL), {}
    sample = jax.jit(policy.sample)
    params = transposed.inference_params(params, [jax.default_backend()])
    key = jax.random.key(1)
    return lambda: jax.block_until_ready(sample(params, key, example.obs)), {}


def serve(without: str) -> None:
    """The process of one trick, or of ALL."""
    if without != ALL:
        for (module, name), value in TRICKS[without].attributes.items():
            setattr(module, name, value)
    runtime.set_up()
    runtime.use_cache()
    worker.serve(prepare)


def measure(name: str, rounds: int) -> dict[str, dict]:
    """{trick: its gain in this case, and milliseconds without it}; ALL: milliseconds."""
    case, tricks = CASES[name]
    command = [sys.executable, "-m", "experiments.cpu.tricks", "--without"]
    sides = {}
    for trick in (ALL, *tricks):
        sides[trick] = Side([*command, trick], case)
        sides[trick].wait()  # one after the other: compiling takes both cores
    medians = {trick: [] for trick in sides}
    for turn in range(rounds + 1):
        for trick, side in sides.items():
            before = len(side.milliseconds)
            side.turn()
            if turn:  # the first turn is one call, which tells how many fit a second
                medians[trick].append(float(np.median(side.milliseconds[before:])))
    for side in sides.values():
        side.end()
    if not rounds:
        return {}
    steps = STEPS_PER_CALL if case["kind"] == "train" else 1
    rows = {ALL: {"ms": float(np.median(medians[ALL])) / steps}}
    for trick in tricks:
        ratios = np.divide(medians[trick], medians[ALL])
        rows[trick] = {
            "ms": float(np.median(medians[trick])) / steps,
            "gain": float(np.median(ratios)),
            "gain_spread": [float(ratios.min()), float(ratios.max())],
        }
    return rows


def table(results: dict[str, dict]) -> str:
    """The results as a table in Markdown, a row per case and trick."""
    lines = ["| case | trick | ms with | ms without | gain | spread |", "|---|---|---|---|---|---|"]
    for case, rows in results.items():
        for trick, row in rows.items():
            if trick != ALL:
                low, high = row["gain_spread"]
                numbers = f"{rows[ALL]['ms']:.1f} | {row['ms']:.1f} | {row['gain']:.2f}"
                lines.append(
                    f"| {case} | {TRICKS[trick].what} | {numbers} | {low:.2f} to {high:.2f} |"
                )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.cpu.tricks")
    parser.add_argument("--without", help="a trick: be the process that does without it")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--rounds", type=int, default=6, help="turns per process; 0: compile only")
    args = parser.parse_args()
    if args.without:
        serve(args.without)
        return 0
    names = [name for name in CASES if args.only in name]
    if not names:
        raise UserError(f"--only {args.only}: no case has it in its name; there are {[*CASES]}.")
    path = HERE / "tricks.json"
    results = json.loads(path.read_text())["rows"] if path.exists() else {}
    for name in tqdm(names, unit="case"):
        rows = measure(name, args.rounds)
        if rows:
            results[name] = rows
            result = {"rows": results, **provenance.provenance()}
            path.write_text(json.dumps(result, indent=2) + "\n")
    print(table(results))
    return 0


if __name__ == "__main__":
    errors.run(main)
