"""The options of the command: its parser, and their values, checked before anything is read."""

import argparse
from collections.abc import Iterable, Mapping
import math
from pathlib import Path
import re
from typing import NamedTuple

from dpjax.core.errors import UserError

# {regular expression: option}. Errors of the library name arguments of functions; the command
# prints the option that sets each of them.
NAMES = {
    r"\bkeys= ?": "--keys ",
    r"\bmapping=": "--mapping ",
    r"\bjoins=": "--join ",
    r"\bfollowing=True\b": "--following",
    r"\bfilter_key=": "--filter ",
    r"\babsolute=True\b": "--absolute",
    # Not the key "actions" in "--mapping actions=action".
    r"(?<!--mapping )\bactions=": "--actions ",
    r"\bepisodes=": "--episodes ",
    r"\bdrop_first=": "--drop-first ",
    r"\bdrop_last=": "--drop-last ",
    r"\bshift_actions=": "--shift-actions ",
    r"\bto_fps=": "--to-fps ",
    r"\bfps=": "--fps ",
    r"\bon_bad=": "--on-bad ",
}


class Names(NamedTuple):
    """mapping: {old: new}. joins: {new: parts}. keys: None for the source's defaults."""

    keys: list[str] | None
    mapping: dict[str, str]
    joins: dict[str, list[str]]


def parser(formats: Mapping[str, str], description: str) -> argparse.ArgumentParser:
    """The command's parser. formats: {format: its line in --help}."""
    parser = argparse.ArgumentParser(
        prog="python -m dpjax.convert",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest="format", required=True)
    for name, text in formats.items():
        _add_options(subparsers.add_parser(name, help=text, description=text))
    # Only robomimic has filter keys, and a fixed order of the numbers in a pose.
    one = subparsers.choices["robomimic"]
    one.add_argument("--filter", default="", help="demos of this filter key only (mask/<name>)")
    one.add_argument(
        "--absolute", action="store_true", help="actions are poses: turn axis-angle into 6-D"
    )
    return parser


def _add_options(one: argparse.ArgumentParser) -> None:
    """Adds the options of every format."""
    add = one.add_argument
    add("source", type=Path, help="directory or file to read")
    add("out", type=Path, help="directory to write; it must not exist")
    # What is converted, and how it is called.
    add("--keys", help="convert these and the action only, separated by commas")
    add("--mapping", default="", help="other names: old=new, separated by commas")
    add("--join", default="", help="columns made of others: a+b+c=action")
    add("--following", action="store_true", help="the joined action is what follows a step later")
    add("--fps", type=float, default=0.0, help="steps per second, if the source doesn't say")
    # Which episodes, and which of their steps.
    add("--episodes", default="", help="these only, such as 0-40,52 (numbers from 0)")
    add("--on-bad", choices=("error", "skip"), default="error", help="what bad episodes do")
    add("--drop-first", type=int, default=0, help="leave so many steps out at the beginning")
    add("--drop-last", type=int, default=0, help="leave so many steps out at the end")
    add(
        "--shift-actions", type=int, default=0, metavar="N",
        help="give each observation the action of N steps later, if it was recorded too late",
    )  # fmt: skip
    add("--trim-idle", action="store_true", help="cut off the waiting before and after the motion")
    add("--every", type=int, default=1, help="make one step of every N")
    add("--to-fps", type=float, default=0.0, help="the same, as steps per second")
    add(
        "--actions",
        default="",
        help="for --every: absolute (targets: the last of N counts), deltas (changes: they add "
        "up), or deltas:0-5 (only these dims are changes)",
    )


def check(args: argparse.Namespace) -> None:
    """Raises a UserError for values that no source can make right."""
    if args.out.exists():
        raise UserError(f"{args.out} exists already. Remove it or write to another directory.")
    for name in ("fps", "to_fps"):
        value = getattr(args, name)
        if not 0 <= value < math.inf:
            option = name.replace("_", "-")
            raise UserError(f"--{option} {value}: expected a number above 0.")
    for name in ("drop_first", "drop_last"):
        if getattr(args, name) < 0:
            option = name.replace("_", "-")
            raise UserError(f"--{option} {getattr(args, name)}: expected 0 or more.")
    if args.every < 1:
        raise UserError(f"--every {args.every}: expected 1 or more.")
    if args.every > 1 and args.to_fps:
        raise UserError("--every and --to-fps say the same: give one of them.")
    if (args.every > 1 or args.to_fps) and not args.actions:
        raise UserError(
            "--every and --to-fps need --actions: absolute (targets: the last of the steps counts) "
            "or deltas (changes: they add up), or deltas:0-5 if only some dims are changes."
        )
    if args.actions and not (args.every > 1 or args.to_fps):
        raise UserError("--actions goes with --every or --to-fps: otherwise all steps are kept.")
    if not args.source.exists():
        raise UserError(f"{args.source}: no such file or directory.")


def names(args: argparse.Namespace) -> Names:
    """What --keys, --mapping and --join say."""
    # A plus in --mapping joins as --join does: people try either.
    mapping: dict[str, str] = {}
    joins: dict[str, list[str]] = {}
    for option, text in (("--mapping", args.mapping), ("--join", args.join)):
        for pair in split(text):
            # Without "=", `new` is empty.
            old, _, new = pair.partition("=")
            if not old or not new or (option == "--join" and "+" not in old):
                form = "old=new" if option == "--mapping" else "a+b=new"
                raise UserError(f"{option} {text}: expected {form}, separated by commas.")
            if "+" in old:
                joins[new] = [part for part in old.split("+") if part]
            else:
                mapping[old] = new
    if args.following and not joins:
        raise UserError("--following goes with --join: it says of which step the parts are.")
    # Without --keys, None lets `select` take the source's defaults.
    return Names(None if args.keys is None else split(args.keys), mapping, joins)


def split(text: str) -> list[str]:
    """The parts between commas; empty ones are dropped, so a comma at the end does no harm."""
    return [part for part in text.split(",") if part]


def with_options(text: str) -> str:
    """Replaces the names of the library's arguments by those of the command's options."""
    # "filter_key=x is not in mask/" -> "--filter x is not in mask/"
    for argument, option in NAMES.items():
        text = re.sub(argument, option, text)
    return text


def request(args: argparse.Namespace, apart: Iterable[str] = ("out", "on_bad")) -> dict[str, str]:
    """The options that decide what is written: with others, a conversion is another one.

    apart: those that do not; leaving bad episodes out goes on with what is written.
    """
    return {key: str(value) for key, value in sorted(vars(args).items()) if key not in apart}
