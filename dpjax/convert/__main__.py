"""Converts demonstrations from other formats to RLDS, one episode at a time.

    python -m dpjax.convert zarr      SRC OUT    replay buffers of Chi et al. and UMI
    python -m dpjax.convert robomimic SRC OUT    HDF5 of robomimic and MimicGen
    python -m dpjax.convert lerobot   SRC OUT    LeRobot data sets v2 and v3, videos too
    python -m dpjax.convert arrays    SRC OUT    a folder of .npz, or of folders of .npy

If it is killed and started again with the same arguments, it goes on where it was. OUT gets
its name only after all of it has been read back.
"""

import argparse
from collections.abc import Callable
from contextlib import ExitStack
import ctypes
import logging
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
from typing import NamedTuple

import numpy as np

from dpjax.convert import arrays, lerobot, replay_buffer, robomimic, selection
from dpjax.convert import source as sources
from dpjax.convert.read_back import read_back, table
from dpjax.convert.selection import Selection
from dpjax.convert.source import ACTION, Source
from dpjax.core import errors
from dpjax.core.errors import UserError
from dpjax.data.rlds import resumable_writer

CHILD = "DPJAX_CONVERT_CHILD"  # environment variable, set in the process that reads HDF5

log = logging.getLogger("dpjax")


class Format(NamedTuple):
    """help: a line for --help. open_source: (args, stack) -> Source, open as long as `stack`."""

    help: str
    open_source: Callable[[argparse.Namespace, ExitStack], Source]


# To add a format, add a line; dpjax/convert/source.py says what its file has to do.
FORMATS = {
    "zarr": Format(
        "replay buffers of Chi et al.'s code and UMI's: a zarr v2 directory or zip",
        lambda args, stack: replay_buffer.open_source(args.source, stack),
    ),
    "robomimic": Format(
        "HDF5 files of robomimic and MimicGen",
        lambda args, stack: robomimic.open_source(
            args.source, stack, filter_key=args.filter, absolute=args.absolute
        ),
    ),
    "lerobot": Format(
        "LeRobot data sets v2.0, v2.1 and v3.0 in a local directory, videos too",
        lambda args, stack: lerobot.open_source(args.source, stack),
    ),
    "arrays": Format(
        "a folder of .npz files, or of folders of .npy files: one per episode",
        lambda args, stack: arrays.open_source(args.source, stack),
    ),
}
# What errors of the library call an argument, and what the command calls it.
OPTIONS = {
    r"\bkeys= ?": "--keys ",
    r"\bmapping=": "--mapping ",
    r"\bfilter_key=": "--filter ",
    r"\babsolute=True\b": "--absolute",
}


def main(argv: list[str] | None = None) -> int:
    """Converts, reads back what was written, and prints a table of it.

    Raises a UserError that names the command's options.
    """
    # Formats log what they notice; progress bars and this go to stderr, the table to stdout.
    logging.basicConfig(format="dpjax: %(message)s")
    log.setLevel(logging.INFO)
    args = _parser().parse_args(argv)
    # Before the source is read, which may take minutes.
    if args.out.exists():
        raise UserError(f"{args.out} exists already. Remove it or write to another directory.")
    if not 0 <= args.fps < np.inf:
        raise UserError(f"--fps {args.fps}: expected a number above 0.")
    if not args.source.exists():
        raise UserError(f"{args.source}: no such file or directory.")
    # Below this line errors name arguments of functions, and users know options only.
    try:
        print(_convert(args))
    except UserError as error:
        if error.argument is None:
            raise
        raise UserError(_with_options(str(error))) from error
    return 0


def command() -> int:
    """Runs `main`, for HDF5 in a child: a broken file may crash the process that reads it."""
    # The child has CHILD in its environment, and gets past this line.
    arguments = sys.argv[1:]
    if arguments[:1] != ["robomimic"] or CHILD in os.environ:
        return main()
    try:
        child = subprocess.run(
            [sys.executable, "-m", "dpjax.convert", *arguments],
            env={**os.environ, CHILD: str(os.getpid())},
            preexec_fn=_die_with_parent,
        )
    except KeyboardInterrupt:  # the child was interrupted too, and has printed so
        return 130
    if child.returncode < 0:  # killed by this signal, negated
        name = signal.Signals(-child.returncode).name
        raise UserError(
            f"{' '.join(arguments[1:2])}: the process that read it died ({name}): the file is "
            "broken, or the memory is short. Copy it again."
        )
    return child.returncode


def _die_with_parent() -> None:
    """Has Linux kill the child when the command is killed; elsewhere the child goes on."""
    # Python has no function for it. It runs in the child, between fork and exec.
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dpjax.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    formats = parser.add_subparsers(dest="format", required=True)
    for name, (text, _) in FORMATS.items():
        one = formats.add_parser(name, help=text, description=text)
        one.add_argument("source", type=Path, help="directory or file to read")
        one.add_argument("out", type=Path, help="directory to write; it must not exist")
        one.add_argument("--keys", help="convert these and the action only, separated by commas")
        one.add_argument("--mapping", default="", help="other names: old=new, separated by commas")
        one.add_argument(
            "--fps", type=float, default=0.0, help="steps per second, if the source doesn't say"
        )
    # Other formats have neither filter keys nor a convention for poses.
    one = formats.choices["robomimic"]
    one.add_argument("--filter", default="", help="demos of this filter key only (mask/<name>)")
    one.add_argument(
        "--absolute", action="store_true", help="actions are poses: turn axis-angle into 6-D"
    )
    return parser


def _with_options(text: str) -> str:
    """Replaces the names of the library's arguments by those of the command's options."""
    for argument, option in OPTIONS.items():
        text = re.sub(argument, option, text)
    return text


def _convert(args: argparse.Namespace) -> str:
    """Converts the source, and returns the table of the data set."""
    mapping = _parse_mapping(args.mapping)
    keys = None if args.keys is None else _split(args.keys)
    with ExitStack() as stack:
        source = FORMATS[args.format].open_source(args, stack)
        selected = selection.select(source, keys, mapping)
        # Before hours of conversion, so that a wrong choice is noticed now.
        for line in selection.describe_casts(source, selected):
            print(line)
        for key, reason in selected.left_out.items():
            print(f"left out: {key} ({_with_options(reason)})")
        return _write(args, source, selected)


def _split(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _parse_mapping(text: str) -> dict[str, str]:
    """{old: new} from "old=new,old=new"."""
    mapping = {}
    for pair in _split(text):
        old, _, new = pair.partition("=")
        if not old or not new:
            raise UserError(f"--mapping {text}: expected old=new, separated by commas.")
        mapping[old] = new
    return mapping


def _write(args: argparse.Namespace, source: Source, selected: Selection) -> str:
    """Writes the data set, reads it back, and returns its table."""
    # --fps is for sources that don't say; it does not override what a source says.
    if source.fps and args.fps and source.fps != args.fps:
        raise UserError(f"--fps {args.fps:g}: {source.path} says {source.fps:g}.")
    fps = source.fps or args.fps
    observations = [name for name in selected.names.values() if name != ACTION]
    # A conversion that was interrupted goes on only if all of this is the same.
    options = {key: str(value) for key, value in sorted(vars(args).items()) if key != "out"}
    conversion = resumable_writer.Conversion(
        request={
            **options,
            "source": str(args.source.resolve()),
            "state of the source": sources.files_digest(args.source),
        },
        num_episodes=len(source.lengths),
        read=lambda e: sources.as_columns(source, e, selected.names),
        metadata=source.metadata,
        observations=observations,
        description=f"Converted from {args.source.name} ({args.format}).",
        set_metadata={"format": args.format, **({"fps": fps} if fps else {})},
    )
    # The writer calls `verify` before the data set gets its name.
    summaries = []
    verify = lambda path, digests: summaries.append(read_back(path, observations, digests))
    path = resumable_writer.write(args.out, conversion, verify)
    return table(path, summaries[0], fps)


if __name__ == "__main__":
    errors.run(command)
