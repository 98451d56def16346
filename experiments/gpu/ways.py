"""What an accelerator is fastest with: ways to convolve along time, and settings of XLA.

    python -m experiments.gpu.ways [--only train_] [--together 12]

Every row is a process of its own: they compile at once, and are timed one after another.
Plans say besides how far theirs is from that of float32 products ("exact"): a GPU's matrix
units round the numbers of a float32 product to 10 bits. Writes ways-NAME.json beside this.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
import fcntl
import json
import os
from pathlib import Path
import subprocess
import sys
import time

import numpy as np
from tqdm import tqdm

from dpjax import errors
from dpjax.evaluation import facts
from dpjax.nets import conv
from experiments.throughput.cases import everything

HERE = Path(__file__).parent
SECONDS = 1.5  # of calls
LOOP = "--xla_gpu_enable_command_buffer=+WHILE,+CONDITIONAL,+DYNAMIC_SLICE_FUSION"
# Way of `conv` and environment.
WAYS = {
    "library": ("library", {}),
    "beside": ("beside", {}),
    "taps": ("taps", {}),
    "library, loop in a graph": ("library", {"XLA_FLAGS": LOOP}),
    "beside, loop in a graph": ("beside", {"XLA_FLAGS": LOOP}),
    "library, exact": ("library", {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}),
    "beside, exact": ("beside", {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}),
}
ROWS = {
    "train_unet_small": ("library", "beside", "taps"),
    "train_unet_65m": ("library", "beside", "taps"),
    "train_image": ("library", "beside"),
    "sample_unet_small_ddpm-100_b1": tuple(WAYS),
    "sample_unet_65m_ddpm-100_b1": tuple(WAYS),
    "sample_unet_65m_ddim-10_b64": ("library", "beside", "taps"),
}


def convolve(way: str) -> None:
    """Has `conv` take this way on accelerators."""
    if way == "library":
        return
    conv.upsample_xla = conv.upsample_matmul
    conv.conv_xla = conv.conv_taps
    if way == "beside":
        conv.conv_xla = lambda x, kernel, stride, padding: conv.dot(
            conv.neighbours(x, kernel.shape[0], stride, padding), kernel
        )


def timed(case: dict, way: str, lock: str) -> dict:
    """The calls of a case in this process, when no other one is timed."""
    from experiments.throughput import ours

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
        return {"failed": " ".join(done.stderr.strip().splitlines()[-1:])}
    return json.loads(done.stdout.splitlines()[-1])


def far(found: dict[str, dict]) -> None:
    """Adds every plan's distance from that of exact products, over the plan's size."""
    exact = np.array(found.get("library, exact", {}).get("plan") or np.nan)
    for row in found.values():
        plan = row.pop("plan", None)
        if plan is not None and exact.size > 1:
            row["far"] = float(np.linalg.norm(plan - exact) / np.linalg.norm(exact))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.gpu.ways")
    parser.add_argument("--task", help="JSON of one row: time it in this process, print JSON")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--together", type=int, default=12, help="processes at once")
    given = parser.parse_args()
    if given.task:
        print(json.dumps(timed(*json.loads(given.task))))
        return 0
    cases = {case["name"]: case for case in everything(("meanflow", 1))}
    wanted = [(case, way) for case, ways in ROWS.items() for way in ways if given.only in case]
    lock = HERE / ".lock"
    with ThreadPoolExecutor(given.together) as pool:
        made = [pool.submit(child, cases[case], way, lock) for case, way in wanted]
        rows = [one.result() for one in tqdm(made, unit="row")]
    lock.unlink(missing_ok=True)
    results = {case: {} for case, _ in wanted}
    for (case, way), row in zip(wanted, rows):
        results[case][way] = row
    print("| case | way | ms | far | compile s | MB |\n|---|---|---|---|---|---|")
    for case, found in results.items():
        far(found)
        for way, row in found.items():
            cells = [row.get("failed") or f"{row['ms']:.3f}", f"{row.get('far', np.nan):.1e}"]
            cells += [f"{row.get(key, np.nan):.0f}" for key in ("compile_s", "peak_mb")]
            print(f"| {case} | {way} | {' | '.join(cells)} |")
    device = next(row["device"] for row in rows if "device" in row)
    result = {"rows": results, "device": device, "versions": facts.versions()}
    path = HERE / f"ways-{device.lower().replace(' ', '-')}.json"
    path.write_text(json.dumps({**result, "commit": facts.commit()}, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    errors.run(main)
