"""Old names of config keys, tasks and recipes, from before version 0.2.

Run folders with old names can always be loaded (`upgrade`). On a command line the old names work
for one release, with a warning that gives the new name (`arguments`).
"""

from collections.abc import Mapping, Sequence
import logging
from pathlib import Path
import re
from typing import Any

RENAMED = {  # {key or section: its new name}
    "spaces": "representation",
    "train.begin_with": "train.init_from",
}
VALUES = {"task": {"own": "custom"}}  # {key: {value: its new name}}
RECIPES = {"own": "custom"}  # {recipe: its new name}

# --config=file, --config.key=value, --noconfig.key, each with one dash or two.
OPTION = re.compile(r"(--?(?:no)?config)(?:\.([^=]+))?(?:=(.*))?", re.DOTALL)

log = logging.getLogger("dpjax")


def new_key(path: str) -> str:
    """The new name of a dotted key: "spaces.relative" -> "representation.relative"."""
    for old, new in RENAMED.items():
        # The key itself was renamed, or the section that it is in.
        if path == old or path.startswith(f"{old}."):
            return new + path.removeprefix(old)
    return path


def new_value(path: str, value: Any) -> Any:
    """The new name of a key's value, or the value itself if it was not renamed."""
    names = VALUES.get(path, {})
    return names.get(value, value) if isinstance(value, str) else value


def upgrade(config: Mapping, prefix: str = "") -> dict:
    """The nested config of a run folder, with new names in place of old ones."""
    upgraded = {}
    for name, value in config.items():
        # A key stays in its section when it is renamed, so its last part is the name to change.
        path = new_key(prefix + name)
        key = path.rpartition(".")[2]
        if isinstance(value, Mapping):
            upgraded[key] = upgrade(value, f"{path}.")
        else:
            upgraded[key] = new_value(path, value)
    return upgraded


def arguments(argv: Sequence[str]) -> list[str]:
    """Command-line arguments with new names in place of old ones; each change logs a warning."""
    renamed = list(argv[:1])
    is_config_path = False  # whether the preceding argument was --config without "="
    for text in argv[1:]:
        new = _recipe(text) if is_config_path else _argument(text)
        if new != text:
            log.warning("%s is now %s: the old name works in this release only", text, new)
        is_config_path = text in ("--config", "-config")
        renamed.append(new)
    return renamed


def _argument(text: str) -> str:
    """One argument, with the new name of its key, task or recipe."""
    # Options of other kinds have no old names.
    option = OPTION.fullmatch(text)
    if not option:
        return text
    flag, path, value = option.groups()
    # --config and --config=recipe have no key.
    if path is None:
        return text if value is None else f"{flag}={_recipe(value)}"
    # --config.key and --config.key=value.
    key = new_key(path)
    tail = "" if value is None else f"={new_value(key, value)}"
    return f"{flag}.{key}{tail}"


def _recipe(text: str) -> str:
    """The new name of a recipe, or the path of its file if the file has a new name."""
    # ":argument" after the name stays.
    path, colon, argument = text.partition(":")
    # An existing file belongs to the user, whatever its name is.
    file = Path(path)
    if file.stem in RECIPES and not file.exists():
        path = str(file.with_name(RECIPES[file.stem] + file.suffix))
    return path + colon + argument
