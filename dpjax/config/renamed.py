"""Config keys, tasks and recipes that had other names before version 0.2.

Run folders with the old names load for ever (`upgrade`). On a command line the old names work for
one release, with one logged line that gives the new one (`arguments`).
"""

from collections.abc import Mapping, Sequence
import logging
from pathlib import Path
import re
from typing import Any

RENAMED = {  # key or section of keys -> its new name
    "spaces": "representation",
    "train.begin_with": "train.init_from",
}
VALUES = {"task": {"own": "custom"}}  # key -> {value: its new name}
RECIPES = {"own": "custom"}

# --config=file, --config.key=value, --noconfig.key, each with one dash or two.
OPTION = re.compile(r"(--?(?:no)?config)(?:\.([^=]+))?(?:=(.*))?", re.DOTALL)

log = logging.getLogger("dpjax")


def new_key(path: str) -> str:
    """The present name of a dotted key: "spaces.relative" -> "representation.relative"."""
    for old, new in RENAMED.items():
        # A section takes its keys along.
        if path == old or path.startswith(f"{old}."):
            return new + path.removeprefix(old)
    return path


def new_value(path: str, value: Any) -> Any:
    """The present spelling of the value of a key."""
    names = VALUES.get(path, {})
    return names.get(value, value) if isinstance(value, str) else value


def upgrade(config: Mapping, prefix: str = "") -> dict:
    """The nested config of a run folder, every old name replaced by the present one."""
    upgraded = {}
    for name, value in config.items():
        # Names change within their section only, so the tree keeps its form.
        path = new_key(prefix + name)
        key = path.rpartition(".")[2]
        if isinstance(value, Mapping):
            upgraded[key] = upgrade(value, f"{path}.")
        else:
            upgraded[key] = new_value(path, value)
    return upgraded


def arguments(argv: Sequence[str]) -> list[str]:
    """Command-line arguments with old names replaced; one logged line for each of them."""
    renamed = list(argv[:1])
    is_config_path = False  # whether the argument before was a --config without "="
    for text in argv[1:]:
        new = _recipe(text) if is_config_path else _argument(text)
        if new != text:
            log.warning("%s is now %s: the old name works in this release only", text, new)
        is_config_path = text in ("--config", "-config")
        renamed.append(new)
    return renamed


def _argument(text: str) -> str:
    """One argument with its key, task or recipe under the present name."""
    option = OPTION.fullmatch(text)
    if not option:
        return text
    flag, path, value = option.groups()
    if path is None:
        return text if value is None else f"{flag}={_recipe(value)}"
    key = new_key(path)
    tail = "" if value is None else f"={new_value(key, value)}"
    return f"{flag}.{key}{tail}"


def _recipe(text: str) -> str:
    """A recipe's present name, or the file of it where the file of the old name is gone."""
    path, colon, argument = text.partition(":")
    # A user's own file of that name is left alone.
    file = Path(path)
    if file.stem in RECIPES and not file.exists():
        path = str(file.with_name(RECIPES[file.stem] + file.suffix))
    return path + colon + argument
