"""What an accelerator is fastest with: ways to convolve along time, and settings of XLA.

    python -m experiments.gpu.ways [--only train_] [--together 6]

Every row is a process of its own: some compile at once, and all are timed one after another.
Plans say besides how far theirs is from that of float32 products ("exact"), over its size: a
GPU's matrix units round what a float32 product multiplies to 10 bits. Writes ways-NAME.json
beside this after every row; rows that were not measured this time stay as they were.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor, as_completed
import fcntl
import json
import os
from pathlib import Path
import subprocess
import sys
import time

import jax
import numpy as np
from tqdm import tqdm

from dpjax import errors
from dpjax.errors import UserError
from dpjax.evaluation import facts
from dpjax.nets import conv
from experiments.throughput.cases import everything

HERE = Path(__file__).parent
SECONDS = 1.5  # of calls
CUBLAS = "--xla_gpu_enable_triton_gemm=false"  # products by the vendor's library only
LOOP = "--xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL,+DYNAMIC_SLICE_FUSION"
UNTUNED = "--xla_gpu_autotune_level=0"
EXACTLY = "library, without Triton, exact"
EXACT = {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}
# Way of `conv` on a GPU, and environment.
WAYS = {
    "beside": ("beside", {}),
    "library": ("library", {}),
    "taps": ("taps", {}),
    "beside, without Triton": ("beside", {"XLA_FLAGS": CUBLAS}),
    "library, without Triton": ("library", {"XLA_FLAGS": CUBLAS}),
    "beside, without Triton, loop in a graph": ("beside", {"XLA_FLAGS": f"{CUBLAS} {LOOP}"}),
    "beside, without Triton, untuned": ("beside", {"XLA_FLAGS": f"{CUBLAS} {UNTUNED}"}),
    "library, without Triton, untuned": ("library", {"XLA_FLAGS": f"{CUBLAS} {UNTUNED}"}),
    EXACTLY: ("library", {"XLA_FLAGS": CUBLAS, **EXACT}),
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
        conv.conv_beside, conv.upsample_matmul = conv.conv_xla, conv.upsample_xla
    elif way == "taps":
        conv.conv_beside = conv.conv_taps


def timed(case: dict, way: str, lock: str) -> dict:
    """The calls of a case in this process, when no other one is timed."""
    from experiments.throughput import ours

    if jax.default_backend() != "gpu":
        raise UserError(f"these are ways of a GPU; jax computes on {jax.default_backend()} here.")
    convolve(way)
    start = time.perf_counter()
    call, found = ours.prepare(case)
    plan, took = call(), []
    found["compile_s"] = time.perf_counter() - start
    with open(lock, "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        call()
        until = time.perf_counter() + SECONDS
        while time.perf_counter() < until:
            start = time.perf_counter()
            call()
            took.append((time.perf_counter() - start) * 1e3 / found.get("steps_a_call", 1))
    low, median, high = np.quantile(took, [0.1, 0.5, 0.9])
    found.update(ms=median, ms_spread=[low, high], calls=len(took), peak_mb=ours.peak() / 2**20)
    return {**found, "plan": None if plan is None else np.ravel(plan[:1]).tolist()}


def child(case: dict, name: str, lock: Path) -> dict:
    """`timed` in a process of its own, or what it said last."""
    way, more = WAYS[name]
    task = json.dumps([case, way, str(lock)])
    settings = {**os.environ, "XLA_PYTHON_CLIENT_PREALLOCATE": "false", "DPJAX_CACHE": "", **more}
    command = [sys.executable, "-m", "experiments.gpu.ways", "--task", task]
    done = subprocess.run(command, capture_output=True, text=True, env=settings)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "rror" in line]
        return {"failed": (lines or ["ended without a word"])[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def far(row: dict, exact: dict) -> float | None:
    """A plan's distance from that of exact products, over the latter's size."""
    if not row.get("plan") or not exact.get("plan"):
        return None
    difference = np.subtract(row["plan"], exact["plan"])
    return float(np.linalg.norm(difference) / np.linalg.norm(exact["plan"]))


def write(rows: dict[tuple[str, str], dict]) -> None:
    """These rows (case, way), in the place of their own among those that were there before."""
    device = next((row["device"] for row in rows.values() if "device" in row), None)
    if device is None:
        return
    path = HERE / f"ways-{device.lower().replace(' ', '-')}.json"
    results = json.loads(path.read_text())["rows"] if path.exists() else {}
    for (case, way), row in rows.items():
        kept = {key: row[key] for key in row if key not in ("plan", "device", "machine")}
        kept["far"] = far(row, rows.get((case, EXACTLY), {}))
        results.setdefault(case, {})[way] = kept
    about = {"device": device, "versions": facts.versions(), "commit": facts.commit()}
    path.write_text(json.dumps({"rows": results, **about}, indent=2) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.gpu.ways")
    parser.add_argument("--task", help="JSON of one row: time it in this process, print JSON")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--together", type=int, default=6, help="processes at once")
    given = parser.parse_args()
    if given.task:
        print(json.dumps(timed(*json.loads(given.task))))
        return 0
    cases = {case["name"]: case for case in everything()}
    wanted = [(case, way) for case, ways in ROWS.items() for way in ways if given.only in case]
    if not wanted:
        raise UserError(f"--only {given.only}: no case has it in its name; there are {[*ROWS]}.")
    rows = {}
    print("| case | way | ms | compile s | MB |\n|---|---|---|---|---|")
    with ThreadPoolExecutor(given.together) as pool:
        made = {pool.submit(child, cases[case], way, HERE / ".lock"): (case, way)
                for case, way in wanted}  # fmt: skip
        for one in tqdm(as_completed(made), total=len(made), unit="row"):
            row = rows[made[one]] = one.result()
            write(rows)
            cells = [row.get("failed") or f"{row['ms']:.3f}"]
            cells += [f"{row.get(key, np.nan):.0f}" for key in ("compile_s", "peak_mb")]
            tqdm.write(f"| {' | '.join([*made[one], *cells])} |")
    (HERE / ".lock").unlink()
    return 0


if __name__ == "__main__":
    errors.run(main)
