"""How commands are started, and the command line of whatever takes --config.

absl and ml_collections are strict about flags, but a misspelled key ends there in a
traceback, and a config file that cannot be read in a page of text. So the file is
read and the keys are looked up here, before absl has a look.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
import re
import runpy
import sys
import traceback

from absl import flags

from dpjax.config import renamed
from dpjax.config.checks import TEXTS, flatten, type_name
from dpjax.core import errors, runtime
from dpjax.core.errors import UserError, choices

HELP = ("--help", "-help", "-h", "--helpshort", "--helpfull", "-?")
OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]+)(?:=(.*))?$", re.DOTALL)


def run(main: Callable[[], int | None]) -> None:
    """`errors.run` of a command that compiles: what CPUs want, and the compilation cache."""
    runtime.set_up()
    runtime.use_cache()
    errors.run(main)


def parse(
    argv: list[str], usage: str, keys: Mapping, values: flags.FlagValues = flags.FLAGS
) -> list[str]:
    """absl's flags of argv; UserError instead of a traceback.

    usage: what --help prints. keys: the config that it lists where none is given.
    values: where the flags are defined.
    """
    argv[:] = renamed.arguments(argv)  # in place: config_flags reads the same list later
    path = _config_path(argv)
    config = read_config_file(path) if path is not None else keys
    if set(HELP) & set(argv[1:]):
        print(f"{usage}\nKeys (--config.key=value) and their values in {path or 'base.py'}:\n")
        print("\n".join(f"  {key}={value!r}" for key, value in flatten(config).items()))
        sys.exit(0)
    argv[:], own = own_keys(argv, config)  # in place: config_flags reads the same list later
    for text in argv[1:]:
        if found := OVERRIDE.match(text):
            check_known(found[1], config)
    try:
        rest = values(argv)
        put(own, values["config"].value if own else None)
    except flags.IllegalFlagValueError as error:
        raise UserError(_wrong_value(str(error), config)) from error
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{error}".strip("\"'")) from error
    if rest[1:]:
        raise UserError(
            f"{rest[1]!r} is no option: give options as --workdir=… or --config.train.steps=…."
        )
    return rest


def own_keys(argv: list[str], config: Mapping) -> tuple[list[str], dict[str, str]]:
    """argv without those --config.<section>.<key>=<text> that make a new key, and these.

    Of sections whose keys are the user's (`config_check.TEXTS`): absl knows only the keys
    that are there.
    """
    rest, own, there = argv[:1], {}, flatten(config)
    for text in argv[1:]:
        found = OVERRIDE.match(text)
        section, _, key = found[1].rpartition(".") if found else ("", "", "")
        if section in TEXTS and found[2] and f"{section}.{key}" not in there:
            own[f"{section}.{key}"] = found[2]
        else:
            rest.append(text)
    return rest, own


def put(own: Mapping[str, str], config) -> None:
    """Writes the keys of `own_keys` into the locked config."""
    for path, value in own.items():
        *sections, key = path.split(".")
        with config.unlocked():
            section = config
            for name in sections:
                section = section[name]
            section[key] = value


def check_known(key: str, config: Mapping) -> None:
    """Refuses a dotted key that the config does not have, with the nearest of its level."""
    section, before = config, "config"
    for part in key.split("."):
        if not isinstance(section, Mapping):
            raise UserError(f"--config.{key}: {before} is one value, not a section.")
        if part not in section:
            raise UserError(f"--config.{key}: {before} has no {part!r}; {choices(part, section)}.")
        section, before = section[part], f"{before}.{part}"


def read_config_file(given: str) -> Mapping:
    """The config of `file.py` or `file.py:argument`."""
    path, *argument = given.split(":", 1)
    if not Path(path).is_file():
        there = sorted(str(name) for name in Path(path).parent.glob("*.py"))
        raise UserError(f"--config {path}: no such file; {choices(path, there)}.")
    try:
        content = runpy.run_path(path)
        if "get_config" not in content:
            raise UserError(f"--config {path} has no get_config(); see configs/base.py.")
        return content["get_config"](*argument).to_dict()
    except UserError:
        raise
    except Exception as error:
        trace = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in trace if frame.filename == path]
        line = f" line {lines[-1]}" if lines else ""
        raise UserError(f"--config {path}{line}: {type(error).__name__}: {error}.") from error


def _config_path(argv):
    """What follows --config, or None."""
    for i, text in enumerate(argv):
        if found := re.fullmatch(r"--?config=(.*)", text):
            return found[1]
        if re.fullmatch(r"--?config", text) and i + 1 < len(argv):
            return argv[i + 1]
    return None


def _wrong_value(text, config):
    """absl's complaint about a value, said with the type that the key has."""
    found = re.match(r"flag --config\.([\w.]+)=(.*?): ", text, re.DOTALL)
    if not found:
        return text
    value = config
    for part in found[1].split("."):
        value = value[part]
    return f"--config.{found[1]}={found[2]} must be {type_name(value)}, such as {value!r}."
