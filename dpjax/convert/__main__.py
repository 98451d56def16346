"""Converts demonstrations of other formats to RLDS, an episode at a time.

    python -m dpjax.convert zarr      SRC OUT    replay buffers of Chi et al. and UMI
    python -m dpjax.convert robomimic SRC OUT    HDF5 of robomimic and MimicGen
    python -m dpjax.convert lerobot   SRC OUT    LeRobot data sets v2 and v3, videos too
    python -m dpjax.convert arrays    SRC OUT    a folder of .npz, or of folders of .npy

Killed and started again with the same arguments it goes on where it was. OUT gets its
name when all of it has been read back.
"""

import argparse
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
import ctypes
import logging
import os
from pathlib import Path
import signal
import subprocess
import sys
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from dpjax.convert import arrays, lerobot, replay_buffer, robomimic
from dpjax.convert import source as sources
from dpjax.convert.source import ACTION, Choice, Source
from dpjax.core import errors
from dpjax.core.errors import UserError
from dpjax.data import rlds
from dpjax.data.episodes import digest
from dpjax.data.rlds import resumable_writer

CHILD = "DPJAX_CONVERT_CHILD"  # set in the process that reads HDF5
# {format: (what its parser says, opens a source that lives as long as the stack)}
FORMATS = {
    "zarr": (
        "replay buffers of Chi et al.'s code and UMI's: a zarr v2 directory or zip",
        lambda args, stack: replay_buffer.open_source(args.source, stack),
    ),
    "robomimic": (
        "HDF5 files of robomimic and MimicGen",
        lambda args, stack: robomimic.open_source(
            args.source, stack, only=args.filter, absolute=args.absolute
        ),
    ),
    "lerobot": (
        "LeRobot data sets v2.0, v2.1 and v3.0 in a local directory, videos too",
        lambda args, stack: lerobot.open_source(args.source, stack),
    ),
    "arrays": (
        "a folder of .npz files, or of folders of .npy files: one an episode",
        lambda args, stack: arrays.open_source(args.source, stack),
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Converts, reads back what was written, and prints what is there."""
    logging.basicConfig(format="%(message)s")
    args = _parser().parse_args(argv)
    if args.out.exists():  # before the source is read, which may take minutes
        raise UserError(f"{args.out} exists already. Remove it or write to another directory.")
    if not 0 <= args.fps < np.inf:
        raise UserError(f"--fps {args.fps}: expected a number above 0.")
    if not args.source.exists():
        raise UserError(f"{args.source}: no such file or directory.")
    mapping, keys = _mapping(args.mapping), None if args.keys is None else _names(args.keys)
    with ExitStack() as stack:
        source = FORMATS[args.format][1](args, stack)
        choice = sources.choose(source, keys, mapping)
        for line in [*source.said, *sources.say(source, choice)]:
            print(line)
        for key, why in choice.left_out.items():
            print(f"left out: {key} ({why})")
        table = _write(args, source, choice)
    print(table)
    return 0


def command() -> int:
    """`main`; HDF5 is read in a child, since a broken file may take its process with it."""
    arguments = sys.argv[1:]
    if arguments[:1] != ["robomimic"] or CHILD in os.environ:
        return main()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "dpjax.convert", *arguments],
            env={**os.environ, CHILD: str(os.getpid())},
            preexec_fn=_die_with_parent,
        )
    except KeyboardInterrupt:  # the child got it too, and says so
        return 130
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise UserError(
            f"{' '.join(arguments[1:2])}: the process that read it died ({name}): the file is "
            "broken, or the memory is short. Copy it again."
        )
    return done.returncode


def _die_with_parent() -> None:
    """A kill of the command is one of its child (Linux; elsewhere the child goes on)."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dpjax.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    formats = parser.add_subparsers(dest="format", required=True)
    for name, (about, _) in FORMATS.items():
        one = formats.add_parser(name, help=about, description=about)
        one.add_argument("source", type=Path, help="directory or file to read")
        one.add_argument("out", type=Path, help="directory to make; it must not exist")
        one.add_argument("--keys", help="these and the action only, comma between")
        one.add_argument("--mapping", default="", help="other names: old=new, comma between")
        one.add_argument("--fps", type=float, default=0.0, help="where the source doesn't say it")
    one = formats.choices["robomimic"]
    one.add_argument("--filter", default="", help="demos of this filter key only (mask/<name>)")
    one.add_argument(
        "--absolute", action="store_true", help="actions are poses: turn axis-angle into 6-D"
    )
    return parser


def _names(text: str) -> list[str]:
    return [key for key in text.split(",") if key]


def _mapping(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in _names(text)]
    for old, _, new in pairs:
        if not old or not new:
            raise UserError(f"--mapping {text}: expected old=new, comma between.")
    return {old: new for old, _, new in pairs}


def _write(args: argparse.Namespace, source: Source, choice: Choice) -> str:
    """Writes the data set and returns its table."""
    if source.fps and args.fps and source.fps != args.fps:
        raise UserError(f"--fps {args.fps:g}: {source.path} says {source.fps:g}.")
    fps = source.fps or args.fps
    observations = [name for name in choice.names.values() if name != ACTION]
    given = {key: value for key, value in sorted(vars(args).items()) if key != "out"}
    job = resumable_writer.Conversion(
        asked={
            **{key: str(value) for key, value in given.items()},
            "source": str(args.source.resolve()),
            "state of the source": sources.state(args.source),
        },
        episodes=len(source.lengths),
        read=lambda e: sources.as_columns(source, e, choice.names),
        about=source.about,
        observations=observations,
        description=f"Converted from {args.source.name} ({args.format}).",
        facts={"format": args.format, **({"fps": fps} if fps else {})},
    )
    tables = []
    verify = lambda path, digests: tables.append(_verified(path, observations, digests, fps))
    path = resumable_writer.write(args.out, job, verify)
    return tables[0].text(path)


class Table(NamedTuple):
    """What a data set holds: lengths [E], and {column: (shape, least, greatest number)}."""

    lengths: list[int]
    ranges: dict[str, tuple[tuple[int, ...], float, float]]
    fps: float

    def text(self, path: Path) -> str:
        """A line on the whole and a line a column."""
        low, high, steps = min(self.lengths), max(self.lengths), sum(self.lengths)
        rate = f"{self.fps:g} steps a second" if self.fps else "steps a second not known"
        lines = [
            f"{path}: {len(self.lengths):,} episodes, {steps:,} steps, {low} to {high} an "
            f"episode, {rate}",
            f"{'key':<16} {'shape':<14} {'min':>10} {'max':>10}",
        ]
        for key, (shape, least, most) in self.ranges.items():
            kind = "  images" if len(shape) == 3 else ""
            lines.append(f"{key:<16} {str(list(shape)):<14} {least:>10.4g} {most:>10.4g}{kind}")
        return "\n".join(lines)


def _verified(path: Path, observations: Sequence[str], digests: Sequence[str], fps: float) -> Table:
    """Reads all of it back; refuses what differs from what was given to the writer."""
    features = {**{key: f"observation/{key}" for key in observations}, ACTION: ACTION}
    found = rlds.stream(path, features=features)
    lengths, ranges = [], {}
    progress = tqdm(found, total=len(digests), desc="reading back", unit=" episodes")
    for e, columns in enumerate(progress):
        if digest(columns) != digests[e]:
            raise UserError(f"{path}: episode {e} reads back different from what was written.")
        lengths.append(len(columns[ACTION]))
        ranges = _widened(ranges, columns)
    return Table(lengths, ranges, fps)


def _widened(ranges: Mapping, columns: Mapping[str, np.ndarray]) -> dict:
    wider = {}
    for key, x in columns.items():
        _, low, high = ranges.get(key, ((), np.inf, -np.inf))
        wider[key] = x.shape[1:], min(low, float(x.min())), max(high, float(x.max()))
    return wider


if __name__ == "__main__":
    errors.run(command)
