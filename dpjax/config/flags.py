"""The command line of whatever takes --config, and how such a command is started.

absl and ml_collections are strict about flags, but end for a misspelled key in a traceback. So
the config file is read and the keys are looked up here, before they see them.
"""

from collections.abc import Callable, Mapping
import logging
import re
import sys

from absl import flags
from ml_collections import ConfigDict, config_flags

from dpjax.config import page, recipes, renamed
from dpjax.config.defaults import OPEN_TEXTS, get_config
from dpjax.config.keys import flatten, type_name
from dpjax.core import errors, runtime
from dpjax.core.errors import UserError, choices

HELP = ("--help", "-help", "-h", "--helpshort", "--helpfull", "-?")
OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]+)(?:=(.*))?", re.DOTALL)


def run(main: Callable[[], int | None]) -> None:
    """`errors.run` of a command that compiles: what CPUs want, and the compilation cache."""
    # Before anything logs; `force`, since absl has put its own handler there.
    logging.basicConfig(level=logging.INFO, format="dpjax: %(message)s", force=True)
    for name in ("absl", "jax", "orbax"):
        logging.getLogger(name).setLevel(logging.WARNING)
    runtime.set_up()
    runtime.use_cache()
    errors.run(main)


def parse(argv: list[str], usage: str, values: flags.FlagValues) -> ConfigDict | None:
    """Parses a command line; returns its config, locked, or None where it has no --config.

    argv: the command first. usage: what --help prints before the keys. values: where the other
    flags of the command are defined, and get their values; `values.config` is the config, too.
    """
    # The config file, before absl sees the command line.
    name, argv = take_config(renamed.arguments(argv))
    config = recipes.read(name) if name is not None else None
    # --help lists the keys of that file.
    if set(HELP) & set(argv[1:]):
        print(usage)
        print(f"Keys (--config.key=value) of {name or 'a config'}, and their values:\n")
        print(page.terminal((config or get_config()).to_dict()))
        sys.exit(0)
    # Overrides: new keys of open sections, then misspelled keys, then the values of known ones.
    if config is not None:
        argv = put_new_keys(argv, config)
        for text in argv[1:]:
            if override := OVERRIDE.fullmatch(text):
                check_known(override[1], config)
    try:
        # ml_collections makes a flag of each key that argv overrides, and sets it.
        if config is None:
            flags.DEFINE_string("config", None, "A recipe or a config file.", flag_values=values)
        else:
            config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        rest = values(argv)
    except flags.IllegalFlagValueError as error:
        raise UserError(_wrong_value(str(error), config)) from error
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{error}".strip("\"'")) from error
    if rest[1:]:
        raise UserError(
            f"{rest[1]!r} is not an option: give options as --workdir=… or --config.train.steps=…."
        )
    return config


def take_config(argv: list[str]) -> tuple[str | None, list[str]]:
    """(what --config names, argv without it); the last one counts, None without any."""
    name = None
    rest = argv[:1]
    # An iterator, since `--config NAME` takes two words.
    words = iter(argv[1:])
    for text in words:
        if text in ("--config", "-config"):
            name = next(words, None)
            if name is None:
                raise UserError("--config needs a value: a recipe, or a config file.")
        elif option := re.fullmatch(r"--?config=(.*)", text, re.DOTALL):
            name = option[1]
        else:
            rest.append(text)
    return name, rest


def put_new_keys(argv: list[str], config: ConfigDict) -> list[str]:
    """Sets the keys that argv adds to open sections; returns argv without them.

    Such as --config.data.columns.pose=observation/pose: absl knows only keys that are there.
    """
    rest = argv[:1]
    existing = flatten(config.to_dict())
    for text in argv[1:]:
        override = OVERRIDE.fullmatch(text)
        section, _, key = override[1].rpartition(".") if override else ("", "", "")
        if section in OPEN_TEXTS and override[2] and f"{section}.{key}" not in existing:
            with config.unlocked():
                config[section][key] = override[2]
        else:
            rest.append(text)
    return rest


def check_known(path: str, config: Mapping) -> None:
    """Refuses a dotted key that the config does not have, with the nearest of its section."""
    # From section to section, along the dots.
    section = config
    parent = "config"
    for part in path.split("."):
        if not isinstance(section, (Mapping, ConfigDict)):
            raise UserError(f"--config.{path}: {parent} is one value, not a section.")
        if part not in section:
            raise UserError(f"--config.{path}: {parent} has no {part!r}; {choices(part, section)}.")
        section = section[part]
        parent = f"{parent}.{part}"


def _wrong_value(text: str, config: ConfigDict) -> str:
    """absl's complaint about a value, told with the type that the key has."""
    # absl: "flag --config.train.steps=x: invalid literal for int() with base 10: 'x'".
    flag = re.match(r"flag --config\.([\w.]+)=(.*?): ", text, re.DOTALL)
    if not flag:
        return text
    value = config
    for part in flag[1].split("."):
        value = value[part]
    return f"--config.{flag[1]}={flag[2]} must be {type_name(value)}, such as {value!r}."
