"""Conversion, size, loading and windows a second, for each format, from the same episodes.

    python -m experiments.data_formats.run --zarr pusht_cchi_v7_replay.zarr [--episodes 206]

The zarr is converted as it is. From what that gave, the same episodes are written as
robomimic's HDF5, a LeRobot v3.0 set with an H.264 video, and .npz files (make.py), and
converted in their turn, each in a process of its own, with and without images. All of it
lies in a temporary folder. Stop other work meanwhile.
"""

import argparse
from collections.abc import Iterator
import json
from pathlib import Path
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

from dpjax.core import errors
from dpjax.core.errors import UserError
from dpjax.data import loader, rlds, windows
from dpjax.evaluation import provenance
from experiments.data_formats import make

HERE = Path(__file__).parent
BATCH, BATCHES = 256, 100
HORIZON = dict(horizon=16, before=1, after=7)  # the paper's
FEATURES = {"state": "observation/state", "action": "action"}
MAKE = {"robomimic": make.robomimic, "lerobot": make.lerobot, "arrays": make.arrays}


def converted(name: str, source: Path, out: Path, *options: str) -> dict:
    """`python -m dpjax.convert` with what it took: seconds, and memory of its largest process."""
    start, peak = time.perf_counter(), 0
    command = [sys.executable, "-m", "dpjax.convert", name, str(source), str(out), *options]
    process = subprocess.Popen(command)
    while process.poll() is None:
        peak = max(peak, *map(resident, [process.pid, *children(process.pid)]))
        time.sleep(0.02)
    if process.returncode:
        raise UserError(f"dpjax.convert {name} {source} ended with code {process.returncode}.")
    return {"seconds": time.perf_counter() - start, "peak_mb": peak / 1e3}


def children(process: int) -> list[int]:
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:  # it ended meanwhile
        return []
    return [int(child) for child in text.split()]


def resident(process: int) -> int:
    """The most memory that a process has had so far, kB; 0 once it is gone."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    found = [line for line in text.splitlines() if line.startswith("VmHWM:")]
    return int(found[0].split()[1]) if found else 0


def megabytes(path: Path) -> float:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def source_megabytes(source: Path, keys: list[str]) -> float:
    """Of a zarr only the arrays that are converted; of other formats all."""
    parts = [source / "data" / key for key in keys]
    return sum(map(megabytes, parts)) if parts[0].exists() else megabytes(source)


def loaded(out: Path, images: bool) -> dict:
    """Seconds to read a set into memory, and windows of it a second."""
    features = FEATURES | ({"image": "observation/image"} if images else {})
    start = time.perf_counter()
    episodes = rlds.read(out, features=features)
    seconds = time.perf_counter() - start
    indices, mask = windows.window_indices(episodes.ends, **HORIZON)
    keys = [key for key in features if key != "action"]
    table = loader.place(episodes.columns, indices, mask, keys, "action", 2)
    gather = jax.jit(lambda data, inputs: loader.gather(data, inputs, np.arange(BATCH), 2))
    feed = lambda i: gather(table.table, table.inputs(loader.batch_indices(len(table), BATCH, 0, i)))
    jax.block_until_ready(feed(0))  # compiles
    start = time.perf_counter()
    for i in range(BATCHES):
        batch = feed(i)
    jax.block_until_ready(batch)
    rate = BATCH * BATCHES / (time.perf_counter() - start)
    columns = episodes.columns.values()
    size = sum(np.prod(column.shape) * column.dtype.itemsize for column in columns)
    count, steps = len(episodes.ends), int(episodes.ends[-1])
    return {
        "episodes": count,
        "steps": steps,
        "columns_mb": float(size) / 1e6,
        "load_seconds": seconds,
        "windows_per_second": rate,
    }


def row(name: str, source: Path, folder: Path, keys: list[str], *options: str) -> dict:
    """One conversion and its numbers."""
    images = "image" in ",".join(keys) or "img" in keys
    out = folder / f"{name}-{'images' if images else 'numbers'}"
    took = converted(name, source, out, *options)
    found = loaded(out, images)
    return {
        "format": name,
        "images": images,
        **found,
        **took,
        "source_mb": source_megabytes(source, keys),
        "rlds_mb": megabytes(out),
        "episodes_per_second": found["episodes"] / took["seconds"],
        "mb_per_second": found["columns_mb"] / took["seconds"],
    }


def stream(out: Path, images: bool, limit: int) -> Iterator[dict[str, np.ndarray]]:
    """The first episodes of a converted set, to be written in another format."""
    features = FEATURES | ({"image": "observation/image"} if images else {})
    for number, episode in enumerate(rlds.stream(out, features=features)):
        if number == limit:
            return
        yield episode


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m experiments.data_formats.run")
    parser.add_argument("--zarr", type=Path, required=True, help="the paper's Push-T zarr")
    parser.add_argument("--episodes", type=int, default=206, help="in the other formats")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for images in (False, True):
            keys = ["state", "img", "action"] if images else ["state", "action"]
            options = ["--keys", ",".join(keys), "--mapping", "img=image"][: 4 if images else 2]
            rows.append(row("zarr", given.zarr, folder, keys, *options))
            good = folder / f"zarr-{'images' if images else 'numbers'}"
            for other, write in MAKE.items():
                suffix = ".hdf5" if other == "robomimic" else ""
                source = write(
                    folder / f"{other}-source-{images}{suffix}",
                    stream(good, images, given.episodes),
                )
                keys = ["state", "image", "action"] if images else ["state", "action"]
                mapping = ["--mapping", "top=image"] if images and other == "lerobot" else []
                rows.append(row(other, source, folder, keys, *mapping))
    for found in rows:
        print(
            f"| {found['format']} | {'images' if found['images'] else 'numbers'} | "
            f"{found['episodes']} | {found['source_mb']:.1f} | {found['rlds_mb']:.1f} | "
            f"{found['seconds']:.1f} | {found['episodes_per_second']:.1f} | "
            f"{found['mb_per_second']:.1f} | {found['peak_mb']:.0f} | "
            f"{found['load_seconds']:.2f} | {found['windows_per_second']:,.0f} |"
        )
    result = {"rows": rows, **provenance.provenance()}
    (HERE / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    errors.run(main)
