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
import signal
import subprocess
import sys
from typing import NamedTuple

from dpjax.convert import (
    arrays,
    edits,
    lerobot,
    options,
    plan,
    replay_buffer,
    robomimic,
    selection,
)
from dpjax.convert import source as sources
from dpjax.convert.files_digest import files_digest
from dpjax.convert.read_back import read_back, table
from dpjax.convert.selection import Selection
from dpjax.convert.source import ACTION, Source
from dpjax.core import errors
from dpjax.core.errors import UserError, listed_ranges
from dpjax.data.rlds import resumable_writer
from dpjax.data.rlds.conversion import SOURCE_STATE, Conversion

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
        lambda args, stack: lerobot.open_source(
            args.source, stack, keys=options.names(args).keys, mapping=options.names(args).mapping
        ),
    ),
    "arrays": Format(
        "a folder of .npz files, or of folders of .npy files: one per episode",
        lambda args, stack: arrays.open_source(args.source, stack),
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Converts a source, reads the result back, and prints a table that describes it.

    Raises a UserError that names the command's options.
    """
    # Log lines and progress bars go to stderr; stdout has the casts and the table.
    logging.basicConfig(format="dpjax: %(message)s")
    log.setLevel(logging.INFO)
    args = _parse(argv)
    # Wrong arguments are refused first: reading the source's headers may take minutes.
    options.check(args)
    # Errors of the library that are about an argument get the option's name instead.
    try:
        print(_convert(args))
    except UserError as error:
        if error.argument is None:
            raise
        raise UserError(options.with_options(str(error))) from error
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


def _parse(argv: list[str] | None) -> argparse.Namespace:
    helps = {name: one.help for name, one in FORMATS.items()}
    return options.parser(helps, __doc__ or "").parse_args(argv)


def _convert(args: argparse.Namespace) -> str:
    """Converts the source, and returns the table of the data set."""
    keys, mapping, joins = options.names(args)
    # Files of the source stay open until the data set is written.
    with ExitStack() as stack:
        source = FORMATS[args.format].open_source(args, stack)
        selected = selection.select(source, keys, mapping, joins, following=args.following)
        # Printed before the conversion, which may take hours: a wrong choice is noticed early.
        for line in selection.describe_casts(source, selected):
            print(line)
        for line in selection.describe_left_out(selected):
            print(options.with_options(line))
        return _write(args, source._replace(lengths=selected.lengths), selected)


def _write(args: argparse.Namespace, source: Source, selected: Selection) -> str:
    """Writes the data set, reads it back, and returns its table."""
    # --fps is for sources without a rate; it cannot override the rate of a source.
    if source.fps and args.fps and source.fps != args.fps:
        raise UserError(f"--fps {args.fps:g}: {source.path} says {source.fps:g}.")
    fps = source.fps or args.fps
    every = edits.every_of(fps, args.to_fps) if args.to_fps else args.every
    episodes = list(range(len(source.lengths)))
    if args.episodes:
        episodes = listed_ranges(args.episodes, len(episodes), "episodes")
    chosen = plan.edits_of(source, selected, every, args.actions)._replace(
        drop_first=args.drop_first, drop_last=args.drop_last, shift=args.shift_actions
    )
    if args.trim_idle:
        chosen = plan.with_rests(chosen, source, episodes, selected)
    if every > 1:
        print(plan.describe_every(chosen, args.actions))
    observations = [name for name in (*selected.names.values(), *selected.joins) if name != ACTION]
    # Idle steps are counted while episodes are read, and reported at the end.
    counts: dict[int, edits.Counts] = {}

    def read(number: int) -> sources.Columns:
        columns = sources.as_columns(source, episodes[number], plan.names_to_read(selected))
        columns, counts[number] = edits.edit(columns, chosen)
        return columns

    conversion = Conversion(
        # An interrupted conversion resumes only with the same options, and with source files of
        # the same names, sizes and times.
        request={
            **options.request(args),
            "source": str(args.source.resolve()),
            SOURCE_STATE: files_digest(args.source),
        },
        num_episodes=len(episodes),
        read=read,
        metadata=lambda number: source.metadata(episodes[number]),
        observations=observations,
        description=f"Converted from {args.source.name} ({args.format}).",
        set_metadata={
            "format": args.format,
            **({"fps": fps / every} if fps else {}),
            **plan.about(args, source, selected, every),
        },
        skip_bad=args.on_bad == "skip",
        label=lambda number: f"episode {episodes[number]}",
    )
    # The writer calls `verify` on a temporary directory, and renames that to args.out only if
    # `verify` raises nothing.
    summaries = []
    verify = lambda path, digests: summaries.append(read_back(path, observations, digests))
    path = resumable_writer.write(args.out, conversion, verify)
    if args.trim_idle:
        idle = sum(count.idle for count in counts.values())
        steps = sum(count.steps for count in counts.values())
        # An interrupted conversion does not read again what it has written.
        print(
            f"cut off: {idle} of {steps} steps, in which nothing moved yet or any more "
            f"({len(counts)} of {len(episodes)} episodes were read now)"
        )
    return table(path, summaries[0], fps / every)


if __name__ == "__main__":
    errors.run(command)
