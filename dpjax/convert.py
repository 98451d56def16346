"""Converts demonstrations to RLDS.

    python -m dpjax.convert zarr SRC OUT [--keys state,keypoint]
"""

import argparse
import logging
from pathlib import Path

import numpy as np
from tqdm import tqdm

from dpjax import errors
from dpjax.data import rlds
from dpjax.data.convert import zarr_buffer
from dpjax.data.episodes import Episodes, fingerprint
from dpjax.data.frames import Frames
from dpjax.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Converts, reads back what was written, and prints what is there."""
    logging.basicConfig(format="%(message)s")
    args = _parser().parse_args(argv)
    out = Path(args.out)
    if out.exists():  # before the source is read, which may take minutes
        raise UserError(f"{out} exists already. Remove it or write to another directory.")
    keys = None if args.keys is None else [key for key in args.keys.split(",") if key]
    buffer = zarr_buffer.load(args.source, keys)
    for key, why in buffer.left_out.items():
        print(f"left out: {key} ({why})")
    if "action" not in buffer.episodes.columns:
        raise UserError(f"{args.source}: no key 'action' among its data.")
    _write(buffer.episodes, out)
    written = _read_back(buffer.episodes, out)
    print(table(written))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dpjax.convert", description=__doc__)
    formats = parser.add_subparsers(dest="format", required=True)
    zarr = formats.add_parser("zarr", help="the replay buffer of Chi et al.'s code")
    zarr.add_argument("source", help="directory with data/ and meta/episode_ends")
    zarr.add_argument("out", help="directory to make; it must not exist")
    zarr.add_argument("--keys", help="observations to convert, comma between; default all")
    return parser


def _write(episodes: Episodes, out: Path) -> None:
    stream = tqdm(zarr_buffer.episodes(episodes), total=len(episodes.ends), unit=" episodes")
    rlds.write(
        out,
        stream,
        observations=[key for key in episodes.columns if key != "action"],
        description=f"Converted from {Path(episodes.source).name}.",
    )


def _read_back(episodes: Episodes, out: Path) -> Episodes:
    paths = {key: f"observation/{key}" for key in episodes.columns if key != "action"}
    written = rlds.read(out, features={**paths, "action": "action"})
    if fingerprint(written) != fingerprint(episodes):
        raise UserError(f"{out}: reads back different from {episodes.source}: don't use it.")
    return written


def table(episodes: Episodes) -> str:
    """A line on the whole and a line a column: name, shape, least and greatest number."""
    count, steps = len(episodes.ends), int(episodes.ends[-1])
    low, high = episodes.lengths.min(), episodes.lengths.max()
    lines = [
        f"{episodes.source}: {count:,} episodes, {steps:,} steps, {low} to {high} an episode",
        f"{'key':<16} {'shape':<12} {'min':>10} {'max':>10}",
    ]
    for key, column in episodes.columns.items():
        shape = str(list(column.shape[1:]))
        if isinstance(column, Frames):
            lines.append(f"{key:<16} {shape:<12} {'images':>10}")
            continue
        lines.append(f"{key:<16} {shape:<12} {np.min(column):>10.4g} {np.max(column):>10.4g}")
    return "\n".join(lines)


if __name__ == "__main__":
    errors.run(main)
