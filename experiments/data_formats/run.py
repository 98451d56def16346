"""Measures conversion, size, loading and windows per second of every format.

    python -m experiments.data_formats.run --zarr pusht_cchi_v7_replay.zarr [--episodes 206]

The zarr is converted as it is. The episodes of that data set are then written as robomimic's
HDF5, as a LeRobot v3.0 data set with an H.264 video, and as .npz files (make.py), and each of
them is converted in a process of its own, with and without images. All files are in a temporary
folder. Stop other work meanwhile.
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
BATCH = 256  # windows per batch
BATCHES = 100  # that are timed
HORIZON = dict(horizon=16, before=1, after=7)  # the paper's
FEATURES = {"state": "observation/state", "action": "action"}
WRITERS = {"robomimic": make.robomimic, "lerobot": make.lerobot, "arrays": make.arrays}


def convert(name: str, source: Path, out: Path, *options: str) -> dict:
    """Runs `python -m dpjax.convert`; returns its seconds and the memory of its largest process."""
    start = time.perf_counter()
    peak = 0
    command = [sys.executable, "-m", "dpjax.convert", name, str(source), str(out), *options]
    process = subprocess.Popen(command)
    while process.poll() is None:
        peak = max(peak, *map(resident, [process.pid, *children(process.pid)]))
        time.sleep(0.02)
    if process.returncode:
        raise UserError(f"dpjax.convert {name} {source} ended with code {process.returncode}.")
    return {"seconds": time.perf_counter() - start, "peak_mb": peak / 1e3}


def children(process: int) -> list[int]:
    """Ids of a process's children (Linux)."""
    try:
        text = Path(f"/proc/{process}/task/{process}/children").read_text()
    except OSError:  # it ended meanwhile
        return []
    return [int(child) for child in text.split()]


def resident(process: int) -> int:
    """The peak of a process's resident memory so far, kB; 0 if the process has ended."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    lines = [line for line in text.splitlines() if line.startswith("VmHWM:")]
    return int(lines[0].split()[1]) if lines else 0


def megabytes(path: Path) -> float:
    """Size of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def source_megabytes(source: Path, keys: list[str]) -> float:
    """Size of what is converted: some arrays of a zarr, the whole source of another format."""
    parts = [source / "data" / key for key in keys]
    return sum(map(megabytes, parts)) if parts[0].exists() else megabytes(source)


def load(out: Path, images: bool) -> dict:
    """Reads a data set into memory and gathers batches of its windows; returns both speeds."""
    features = FEATURES | ({"image": "observation/image"} if images else {})
    # From the disk to memory.
    start = time.perf_counter()
    episodes = rlds.read(out, features=features)
    seconds = time.perf_counter() - start

    # Windows in batches: images are looked up on the host, numbers are gathered on the device.
    indices, mask = windows.window_indices(episodes.ends, **HORIZON)
    keys = [key for key in features if key != "action"]
    table = loader.place(episodes.columns, indices, mask, keys, "action", 2)
    gather = jax.jit(lambda data, inputs: loader.gather(data, inputs, np.arange(BATCH), 2))
    ids = lambda i: loader.batch_indices(len(table), BATCH, 0, i)
    feed = lambda i: gather(table.table, table.inputs(ids(i)))
    jax.block_until_ready(feed(0))  # compiles
    start = time.perf_counter()
    for i in range(BATCHES):
        batch = feed(i)
    jax.block_until_ready(batch)
    rate = BATCH * BATCHES / (time.perf_counter() - start)

    columns = episodes.columns.values()
    size = sum(np.prod(column.shape) * column.dtype.itemsize for column in columns)
    return {
        "episodes": len(episodes.ends),
        "steps": int(episodes.ends[-1]),
        "columns_mb": float(size) / 1e6,
        "load_seconds": seconds,
        "windows_per_second": rate,
    }


def measure(name: str, source: Path, folder: Path, keys: list[str], *options: str) -> dict:
    """One row of the table. keys: of the source. options: of the command."""
    images = "image" in ",".join(keys) or "img" in keys
    out = folder / f"{name}-{'images' if images else 'numbers'}"
    conversion = convert(name, source, out, *options)
    loading = load(out, images)
    return {
        "format": name,
        "images": images,
        **loading,
        **conversion,
        "source_mb": source_megabytes(source, keys),
        "rlds_mb": megabytes(out),
        "episodes_per_second": loading["episodes"] / conversion["seconds"],
        "mb_per_second": loading["columns_mb"] / conversion["seconds"],
    }


def stream(out: Path, images: bool, limit: int) -> Iterator[dict[str, np.ndarray]]:
    """The first `limit` episodes of a converted data set."""
    features = FEATURES | ({"image": "observation/image"} if images else {})
    for number, episode in enumerate(rlds.stream(out, features=features)):
        if number == limit:
            return
        yield episode


def measure_all(zarr: Path, count: int) -> list[dict]:
    """The rows of the table: each format with and without images.

    count: how many of the zarr's episodes the other formats have.
    """
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for images in (False, True):
            # The zarr itself; its camera is called "img".
            keys = ["state", "img", "action"] if images else ["state", "action"]
            options = ["--keys", ",".join(keys)]
            if images:
                options += ["--mapping", "img=image"]
            rows.append(measure("zarr", zarr, folder, keys, *options))

            # The other formats, written from the data set that it gave.
            converted = folder / f"zarr-{'images' if images else 'numbers'}"
            keys = ["state", "image", "action"] if images else ["state", "action"]
            for other, write in WRITERS.items():
                suffix = ".hdf5" if other == "robomimic" else ""
                path = folder / f"{other}-source-{images}{suffix}"
                source = write(path, stream(converted, images, count))
                mapping = ["--mapping", "top=image"] if images and other == "lerobot" else []
                rows.append(measure(other, source, folder, keys, *mapping))
    return rows


def main() -> int:
    """Measures all formats, prints the table of the README, and writes results.json."""
    parser = argparse.ArgumentParser(prog="python -m experiments.data_formats.run")
    parser.add_argument("--zarr", type=Path, required=True, help="the paper's Push-T zarr")
    parser.add_argument("--episodes", type=int, default=206, help="in the other formats")
    args = parser.parse_args()
    rows = measure_all(args.zarr, args.episodes)
    for row in rows:
        print(
            f"| {row['format']} | {'images' if row['images'] else 'numbers'} | "
            f"{row['episodes']} | {row['columns_mb']:.1f} | {row['source_mb']:.1f} | "
            f"{row['rlds_mb']:.1f} | {row['seconds']:.1f} | {row['episodes_per_second']:.1f} | "
            f"{row['mb_per_second']:.1f} | {row['peak_mb']:.0f} | "
            f"{row['load_seconds']:.2f} | {row['windows_per_second']:,.0f} |"
        )
    result = {"rows": rows, **provenance.provenance()}
    (HERE / "results.json").write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    errors.run(main)
