"""Converts demonstrations from other formats to RLDS, one episode at a time.

    python -m dpjax.convert zarr      SRC OUT    replay buffers of Chi et al. and UMI
    python -m dpjax.convert robomimic SRC OUT    HDF5 of robomimic and MimicGen
    python -m dpjax.convert lerobot   SRC OUT    LeRobot data sets v2 and v3, videos too
    python -m dpjax.convert arrays    SRC OUT    a folder of .npz, or of folders of .npy

A conversion that was killed resumes when it is started again with the same arguments. OUT
appears only after all of it has been written, read back and compared.
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

# Environment variable that marks the child process of `command`.
CHILD = "DPJAX_CONVERT_CHILD"

log = logging.getLogger("dpjax")


class Format(NamedTuple):
    """A format that the command reads.

    help: its line in --help.
    open_source: (args, stack) -> Source. The source stays open until `stack` is closed.
    """

    help: str
    open_source: Callable[[argparse.Namespace, ExitStack], Source]


# To add a format, add an entry; dpjax/convert/source.py describes what its function returns.
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
# {regular expression: option}. Errors of the library name arguments of functions; the command
# prints the option that sets each of them.
OPTIONS = {
    r"\bkeys= ?": "--keys ",
    r"\bmapping=": "--mapping ",
    r"\bfilter_key=": "--filter ",
    r"\babsolute=True\b": "--absolute",
}


def main(argv: list[str] | None = None) -> int:
    """Converts a source, reads the result back, and prints a table that describes it.

    Raises a UserError that names the command's options.
    """
    # Log lines and progress bars go to stderr; stdout has the casts and the table.
    logging.basicConfig(format="dpjax: %(message)s")
    log.setLevel(logging.INFO)
    args = _parser().parse_args(argv)
    # Wrong arguments are refused first: reading the source's headers may take minutes.
    if args.out.exists():
        raise UserError(f"{args.out} exists already. Remove it or write to another directory.")
    if not 0 <= args.fps < np.inf:
        raise UserError(f"--fps {args.fps}: expected a number above 0.")
    if not args.source.exists():
        raise UserError(f"{args.source}: no such file or directory.")
    # Errors of the library that are about an argument get the option's name instead.
    try:
        print(_convert(args))
    except UserError as error:
        if error.argument is None:
            raise
        raise UserError(_with_options(str(error))) from error
    return 0


def command() -> int:
    """Runs `main`; for HDF5 in a child process, since a broken file can crash the HDF5 library."""
    # The child runs this function too: CHILD in its environment sends it straight to `main`.
    arguments = sys.argv[1:]
    if arguments[:1] != ["robomimic"] or CHILD in os.environ:
        return main()
    # A crash kills the child only, and the parent can report it in one line.
    try:
        child = subprocess.run(
            [sys.executable, "-m", "dpjax.convert", *arguments],
            env={**os.environ, CHILD: str(os.getpid())},
            preexec_fn=_die_with_parent,
        )
    except KeyboardInterrupt:  # the child was interrupted too, and has printed so
        return 130
    # A negative code: the child did not exit, it was killed by that signal (SIGSEGV, SIGKILL).
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        raise UserError(
            f"{' '.join(arguments[1:2])}: the process that read it died ({name}): the file is "
            "broken, or the memory is short. Copy it again."
        )
    return child.returncode


def _die_with_parent() -> None:
    """Asks Linux to kill the child when the command dies; elsewhere the child runs to its end."""
    # Called in the child, between fork and exec. Python has no function for prctl.
    libc = ctypes.CDLL(None)
    if hasattr(libc, "prctl"):
        libc.prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dpjax.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    # Options of every format.
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
    # Only robomimic has filter keys, and a fixed order of the numbers in a pose.
    one = formats.choices["robomimic"]
    one.add_argument("--filter", default="", help="demos of this filter key only (mask/<name>)")
    one.add_argument(
        "--absolute", action="store_true", help="actions are poses: turn axis-angle into 6-D"
    )
    return parser


def _with_options(text: str) -> str:
    """Replaces the names of the library's arguments by those of the command's options."""
    # "filter_key=x is not in mask/" -> "--filter x is not in mask/"
    for argument, option in OPTIONS.items():
        text = re.sub(argument, option, text)
    return text


def _convert(args: argparse.Namespace) -> str:
    """Converts the source, and returns the table of the data set."""
    # Without --keys, None lets `select` take the source's defaults.
    mapping = _parse_mapping(args.mapping)
    keys = None if args.keys is None else _split(args.keys)
    # Files of the source stay open until the data set is written.
    with ExitStack() as stack:
        source = FORMATS[args.format].open_source(args, stack)
        selected = selection.select(source, keys, mapping)
        # Printed before the conversion, which may take hours: a wrong choice is noticed early.
        for line in selection.describe_casts(source, selected):
            print(line)
        for key, reason in selected.left_out.items():
            print(f"left out: {key} ({_with_options(reason)})")
        return _write(args, source, selected)


def _split(text: str) -> list[str]:
    # Empty parts are dropped: "" gives [], and a comma at the end does no harm.
    return [part for part in text.split(",") if part]


def _parse_mapping(text: str) -> dict[str, str]:
    """{old: new} from "old=new,old=new"."""
    mapping = {}
    for pair in _split(text):
        # Without "=", `new` is empty.
        old, _, new = pair.partition("=")
        if not old or not new:
            raise UserError(f"--mapping {text}: expected old=new, separated by commas.")
        mapping[old] = new
    return mapping


def _write(args: argparse.Namespace, source: Source, selected: Selection) -> str:
    """Writes the data set, reads it back, and returns its table."""
    # --fps is for sources without a rate; it cannot override the rate of a source.
    if source.fps and args.fps and source.fps != args.fps:
        raise UserError(f"--fps {args.fps:g}: {source.path} says {source.fps:g}.")
    fps = source.fps or args.fps
    observations = [name for name in selected.names.values() if name != ACTION]
    # An interrupted conversion resumes only if its `request` is unchanged: the same options, and
    # source files of the same names, sizes and times.
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
    # The writer calls `verify` on a temporary directory, and renames that to args.out only if
    # `verify` raises nothing.
    summaries = []
    verify = lambda path, digests: summaries.append(read_back(path, observations, digests))
    path = resumable_writer.write(args.out, conversion, verify)
    return table(path, summaries[0], fps)


if __name__ == "__main__":
    errors.run(command)
