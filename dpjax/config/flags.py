"""Parses the command line of every command that takes --config, and starts the command.

absl and ml_collections show a traceback for a misspelled key. So the config file is read here, and
the keys are looked up in it, before absl sees the command line.
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

# The spellings of --help that absl knows.
HELP = ("--help", "-help", "-h", "--helpshort", "--helpfull", "-?")
# --config.key=value, --config.key and --noconfig.key, each with one dash or two.
OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]+)(?:=(.*))?", re.DOTALL)


def run(main: Callable[[], int | None]) -> None:
    """Runs a command with logging, JAX's settings for this machine and the compilation cache.

    main: the command; it returns its exit code. A UserError becomes one line (`errors.run`).
    """
    # Logging comes first. `force` replaces the handler that absl has installed.
    logging.basicConfig(level=logging.INFO, format="dpjax: %(message)s", force=True)
    # These libraries also log routine messages, in which those of dpjax would be lost.
    for name in ("absl", "jax", "orbax"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # JAX reads these settings when it first uses a device, so they come before the command.
    runtime.set_up()
    runtime.use_cache()
    errors.run(main)


def parse(argv: list[str], usage: str, values: flags.FlagValues) -> ConfigDict | None:
    """Parses a command line; returns its config, or None if it has no --config.

    argv: the command, then its arguments.
    usage: what --help prints before the keys.
    values: the other flags of the command are defined in it. They get their values here, and
        `values.config` becomes the config.
    """
    # 1. The config file.
    name, argv = take_config(renamed.arguments(argv))
    config = recipes.read(name) if name is not None else None
    # 2. --help lists the keys of that file, or the defaults.
    if set(HELP) & set(argv[1:]):
        print(usage)
        print(f"Keys (--config.key=value) of {name or 'a config'}, and their values:\n")
        print(page.terminal((config or get_config()).to_dict()))
        sys.exit(0)
    # 3. Overrides. New keys of open sections are set; other unknown keys are misspelled.
    if config is not None:
        argv = put_new_keys(argv, config)
        for text in argv[1:]:
            if override := OVERRIDE.fullmatch(text):
                check_known(override[1], config)
    try:
        # 4. The values. ml_collections defines a flag for each key that argv overrides, and absl
        # parses its value into the config.
        if config is None:
            flags.DEFINE_string("config", None, "A recipe or a config file.", flag_values=values)
        else:
            config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
        rest = values(argv)
    except flags.IllegalFlagValueError as error:
        raise UserError(_wrong_value(str(error), config)) from error
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{error}".strip("\"'")) from error
    # What is left is not a flag, such as a value after a space that belongs to no option.
    if rest[1:]:
        raise UserError(
            f"{rest[1]!r} is not an option: give options as --workdir=… or --config.train.steps=…."
        )
    return config


def take_config(argv: list[str]) -> tuple[str | None, list[str]]:
    """(the value of --config, or None; argv without it). The last --config counts."""
    name = None
    rest = argv[:1]
    # An iterator, so that `--config NAME` can take the next word, too.
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

    An example is --config.data.columns.pose=observation/pose. ml_collections refuses keys that the
    config does not have yet.
    """
    rest = argv[:1]
    existing = flatten(config.to_dict())
    for text in argv[1:]:
        override = OVERRIDE.fullmatch(text)
        # "data.columns.pose" is the key "pose" of the section "data.columns".
        section, _, key = override[1].rpartition(".") if override else ("", "", "")
        if section in OPEN_TEXTS and override[2] and f"{section}.{key}" not in existing:
            with config.unlocked():
                config[section][key] = override[2]
        else:
            rest.append(text)
    return rest


def check_known(path: str, config: Mapping) -> None:
    """Raises UserError, with a similar key, for a dotted key that the config does not have."""
    # Each part between dots is looked up in the section that the parts before it lead to.
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
    """absl's error text about a value, rewritten with the type that the key has."""
    # absl: "flag --config.train.steps=x: invalid literal for int() with base 10: 'x'".
    flag = re.match(r"flag --config\.([\w.]+)=(.*?): ", text, re.DOTALL)
    if not flag:
        return text  # about another flag, such as --profile=x
    # The value in the config file is an example of the type.
    value = config
    for part in flag[1].split("."):
        value = value[part]
    return f"--config.{flag[1]}={flag[2]} must be {type_name(value)}, such as {value!r}."
