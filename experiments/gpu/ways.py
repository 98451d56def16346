"""What an accelerator is fastest with: ways to convolve along time, and settings of XLA.

    python -m experiments.gpu.ways [--only train_] [--rounds 4]

Every way is a process of its own: those of a case are prepared at once, and then take turns.
Plans say besides how far theirs is from that of float32 products ("exact"), over its size: a
GPU's matrix units round what a float32 product multiplies to 10 bits. Writes ways-NAME.json
beside this after every case; cases that were not measured this time stay as they were.
"""

import argparse
import json
from pathlib import Path
import sys

import jax
import numpy as np
from tqdm import tqdm

from dpjax.core import errors
from dpjax.core.errors import UserError
from dpjax.evaluation import provenance
from dpjax.ops import conv1d
from experiments.throughput import ours
from experiments.throughput.cases import everything
from experiments.throughput.sides import Side, measure

HERE = Path(__file__).parent
CUBLAS = "XLA_FLAGS=--xla_gpu_enable_triton_gemm=false"  # products by the vendor's library only
LOOP = "--xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL,+DYNAMIC_SLICE_FUSION"
UNTUNED = "--xla_gpu_autotune_level=0"
EXACTLY = "library, without Triton, exact"
# Way of `conv` on a GPU, and environment.
WAYS = {
    "beside": ("beside", []),
    "library": ("library", []),
    "taps": ("taps", []),
    "beside, without Triton": ("beside", [CUBLAS]),
    "library, without Triton": ("library", [CUBLAS]),
    "beside, without Triton, loop in a graph": ("beside", [f"{CUBLAS} {LOOP}"]),
    "beside, without Triton, untuned": ("beside", [f"{CUBLAS} {UNTUNED}"]),
    "library, without Triton, untuned": ("library", [f"{CUBLAS} {UNTUNED}"]),
    EXACTLY: ("library", [CUBLAS, "JAX_DEFAULT_MATMUL_PRECISION=highest"]),
}
PLAIN = ("beside", "library", "taps", "beside, without Triton", "library, without Triton")
ROWS = {
    "train_unet_small": (*PLAIN, "beside, without Triton, untuned"),
    "train_unet_65m": (*PLAIN, "beside, without Triton, untuned"),
    "train_image": (*PLAIN, "library, without Triton, untuned"),
    "sample_unet_small_ddpm-100_b1": tuple(WAYS),
    "sample_unet_65m_ddpm-100_b1": tuple(WAYS),
    "sample_unet_65m_ddim-10_b64": PLAIN,
    "sample_unet_65m_ddim-10_b256": PLAIN,
}


def convolve(way: str) -> None:
    """Has `conv` take this way on a GPU; "beside" is its own."""
    if way == "library":
        conv1d.conv_beside, conv1d.upsample_matmul = conv1d.conv_xla, conv1d.upsample_xla
    elif way == "taps":
        conv1d.conv_beside = conv1d.conv_taps


def serve(way: str) -> None:
    """`ours.serve` with this way of `conv`; the facts of a plan have it."""
    if jax.default_backend() != "gpu":
        raise UserError(f"these are ways of a GPU; jax computes on {jax.default_backend()} here.")
    convolve(way)

    def prepare(case: dict):
        call, found = ours.prepare(case)
        plan = call()
        return call, {**found, "plan": None if plan is None else np.ravel(plan[:1]).tolist()}

    ours.serve(prepare)


def timed(case: dict, ways: tuple[str, ...], rounds: int) -> dict[str, dict]:
    """The ways of a case, or what those said last that could not be prepared."""
    made, failed = {}, {}
    for name in ways:
        way, settings = WAYS[name]
        command = ["env", "DPJAX_CACHE=", *settings, sys.executable, "-m", "experiments.gpu.ways"]
        made[name] = Side([*command, "--serve", way], case)
    for name, side in list(made.items()):
        try:
            side.wait()
        except UserError as error:
            failed[name] = {"failed": str(error)}
            del made[name]
    row = measure(case, made, rounds)
    return {name: row[name] if name in made else failed[name] for name in ways}


def far(row: dict, exact: dict) -> float | None:
    """A plan's distance from that of exact products, over the latter's size."""
    if not row.get("plan") or not exact.get("plan"):
        return None
    difference = np.subtract(row["plan"], exact["plan"])
    return float(np.linalg.norm(difference) / np.linalg.norm(exact["plan"]))


def write(case: str, rows: dict[str, dict]) -> None:
    """The ways of a case in the place of what was there before, in the file of their device."""
    device = next((row["device"] for row in rows.values() if "device" in row), None)
    if device is None:
        return
    path = HERE / f"ways-{device.lower().replace(' ', '-')}.json"
    results = json.loads(path.read_text())["rows"] if path.exists() else {}
    results[case] = {
        way: {key: row[key] for key in row if key not in ("plan", "device", "machine")}
        | {"far": far(row, rows.get(EXACTLY, {}))}
        for way, row in rows.items()
    }
    about = {"device": device, "versions": provenance.versions(), "commit": provenance.commit()}
    path.write_text(json.dumps({"rows": results, **about}, indent=2) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.gpu.ways")
    parser.add_argument("--serve", help="a way: be a process of it, as `worker.serve` has them")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--rounds", type=int, default=4, help="turns of every way")
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
        return 0
    wanted = [case for case in everything() if case["name"] in ROWS and given.only in case["name"]]
    if not wanted:
        raise UserError(f"--only {given.only}: no case has it in its name; there are {[*ROWS]}.")
    print("| case | way | ms | prepared in s | MB |\n|---|---|---|---|---|")
    for case in tqdm(wanted, unit="case"):
        rows = timed(case, ROWS[case["name"]], given.rounds)
        write(case["name"], rows)
        for way, row in rows.items():
            cells = [case["name"], way, row.get("failed") or f"{row['ms']:.3f}"]
            cells += [f"{row.get(key, np.nan):.0f}" for key in ("build_s", "peak_mb")]
            tqdm.write(f"| {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    errors.run(main)
