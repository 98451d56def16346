"""What a GPU is fastest with: forms of a convolution along time, and settings of XLA.

    python -m experiments.gpu.ways [--only train_] [--rounds 4]

Every variant is a process of its own. The variants of a case are prepared at once, and then take
turns. For sampled action chunks it also measures how far they are from those of exact float32
products, relative to their size: a GPU's matrix units round the factors of a float32 product to
10 bits. Writes ways-NAME.json beside this file after every case; other cases stay as they were.
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
# {variant: (form of `conv` on a GPU, environment)}. "beside" is `conv1d.conv_neighbours`.
VARIANTS = {
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
ROWS = {  # {case: its variants}
    "train_unet_small": (*PLAIN, "beside, without Triton, untuned"),
    "train_unet_65m": (*PLAIN, "beside, without Triton, untuned"),
    "train_image": (*PLAIN, "library, without Triton, untuned"),
    "sample_unet_small_ddpm-100_b1": tuple(VARIANTS),
    "sample_unet_65m_ddpm-100_b1": tuple(VARIANTS),
    "sample_unet_65m_ddim-10_b64": PLAIN,
    "sample_unet_65m_ddim-10_b256": PLAIN,
}


def choose_form(form: str) -> None:
    """Makes `conv` take this form on a GPU; "beside" is its own."""
    if form == "library":
        conv1d.conv_neighbours = conv1d.conv_xla
        conv1d.upsample_matmul = conv1d.upsample_xla
    elif form == "taps":
        conv1d.conv_neighbours = conv1d.conv_taps


def serve(form: str) -> None:
    """`ours.serve` with this form of `conv`; the facts contain the first chunk that it sampled."""
    if jax.default_backend() != "gpu":
        raise UserError(
            f"these are variants for a GPU; jax computes on {jax.default_backend()} here."
        )
    choose_form(form)

    def prepare(case: dict):
        call, facts = ours.prepare(case)
        chunks = call()
        first = None if chunks is None else np.ravel(chunks[:1]).tolist()
        return call, {**facts, "plan": first}

    ours.serve(prepare)


def timed(case: dict, variants: tuple[str, ...], rounds: int) -> dict[str, dict]:
    """{variant: its row}; for one that could not be prepared the last line of its error."""
    sides = {}
    failed = {}
    for name in variants:
        form, settings = VARIANTS[name]
        command = ["env", "DPJAX_CACHE=", *settings, sys.executable, "-m", "experiments.gpu.ways"]
        sides[name] = Side([*command, "--serve", form], case)
    for name, side in list(sides.items()):
        try:
            side.wait()
        except UserError as error:
            failed[name] = {"failed": str(error)}
            del sides[name]
    row = measure(case, sides, rounds)
    return {name: row[name] if name in sides else failed[name] for name in variants}


def relative_distance(row: dict, exact: dict) -> float | None:
    """Distance of a variant's action chunk from that of exact products, over the latter's norm."""
    if not row.get("plan") or not exact.get("plan"):
        return None
    difference = np.subtract(row["plan"], exact["plan"])
    return float(np.linalg.norm(difference) / np.linalg.norm(exact["plan"]))


def write(case: str, rows: dict[str, dict]) -> None:
    """Replaces the rows of a case in the file of their device."""
    device = next((row["device"] for row in rows.values() if "device" in row), None)
    if device is None:
        return
    path = HERE / f"ways-{device.lower().replace(' ', '-')}.json"
    results = json.loads(path.read_text())["rows"] if path.exists() else {}
    results[case] = {
        name: {key: row[key] for key in row if key not in ("plan", "device", "machine")}
        | {"far": relative_distance(row, rows.get(EXACTLY, {}))}
        for name, row in rows.items()
    }
    source = {"device": device, "versions": provenance.versions(), "commit": provenance.commit()}
    path.write_text(json.dumps({"rows": results, **source}, indent=2) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.gpu.ways")
    parser.add_argument("--serve", help="a form of conv: be the process that computes with it")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--rounds", type=int, default=4, help="turns per variant")
    args = parser.parse_args()
    if args.serve:
        serve(args.serve)
        return 0
    wanted = [case for case in everything() if case["name"] in ROWS and args.only in case["name"]]
    if not wanted:
        raise UserError(f"--only {args.only}: no case has it in its name; there are {[*ROWS]}.")
    print("| case | variant | ms | prepared in s | MB |\n|---|---|---|---|---|")
    for case in tqdm(wanted, unit="case"):
        rows = timed(case, ROWS[case["name"]], args.rounds)
        write(case["name"], rows)
        for name, row in rows.items():
            cells = [case["name"], name, row.get("failed") or f"{row['ms']:.3f}"]
            cells += [f"{row.get(key, np.nan):.0f}" for key in ("build_s", "peak_mb")]
            tqdm.write(f"| {' | '.join(cells)} |")
    return 0


if __name__ == "__main__":
    errors.run(main)
