"""Recipes: the configs that come with dpjax, and the demonstrations of one of them.

In a checkout recipes lie in `configs/`; a wheel carries them as `dpjax/recipes/`. A recipe is a
Python file with a function `get_config()`. It gets another one's config by `load(name)`.
"""

from pathlib import Path
import runpy
import traceback
from typing import Any

from ml_collections import ConfigDict

from dpjax.core.errors import UserError, choices

PACKAGE = Path(__file__).parents[1]


def folder() -> Path:
    """The folder of the recipes."""
    carried = PACKAGE / "recipes"
    return carried if carried.is_dir() else PACKAGE.parent / "configs"


def names() -> list[str]:
    """The names of the recipes."""
    return sorted(file.stem for file in folder().glob("*.py") if file.stem != "__init__")


def path(name: str) -> Path:
    """The file of a recipe; raises UserError if there is none of that name."""
    if name not in names():
        raise UserError(f"recipe {name!r} is unknown; {choices(name, names())}.")
    return folder() / f"{name}.py"


def load(name: str) -> ConfigDict:
    """The config of a recipe."""
    return runpy.run_path(str(path(name)))["get_config"]()


def demonstrations(name: str) -> str:
    """The directory of demonstrations that come with dpjax, for `config.data.dir`.

    `demonstrations/<name>` where the current folder has it, otherwise the one of the package.
    """
    # In the current folder, in an installed wheel, in a checkout.
    here = Path("demonstrations", name)
    carried = PACKAGE / "demonstrations" / name
    in_checkout = PACKAGE.parent / "demonstrations" / name
    for directory in (here, carried, in_checkout):
        if directory.is_dir():
            return str(directory)
    return str(here)


def read(text: str) -> ConfigDict:
    """The config that --config names: a recipe, a file, or either with ":argument" after it.

    The file is executed once. Raises UserError, with the line of the file, for whatever goes
    wrong in it.
    """
    name, colon, argument = text.partition(":")
    file = find(name)
    # Errors in the file become one line; what dpjax itself refuses is one already.
    try:
        get_config = runpy.run_path(str(file)).get("get_config")
        if get_config is None:
            raise UserError(f"--config {name} has no get_config(); see configs/base.py.")
        return checked(name, get_config(argument) if colon else get_config())
    except UserError:
        raise
    except Exception as error:
        # The innermost line of the file itself: what it calls is not the user's to mend.
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(file)]
        where = f" line {lines[-1]}" if lines else ""
        raise UserError(f"--config {name}{where}: {type(error).__name__}: {error}.") from error


def find(name: str) -> Path:
    """The file that --config names: what has a folder or ".py" in it is a path, otherwise a recipe.

    Raises UserError if there is no such file, or no such recipe.
    """
    # A file that exists is meant, even if its name is that of a recipe.
    file = Path(name)
    if file.is_file():
        return file
    # A path without a file: another file of that folder may be meant, or a recipe.
    if file.suffix == ".py" or len(file.parts) > 1:
        near = sorted(str(other) for other in file.parent.glob("*.py"))
        hint = f"did you mean the recipe {file.stem!r}? " if file.stem in names() else ""
        raise UserError(f"--config {name}: no such file; {hint}{choices(name, near)}.")
    if name not in names():
        raise UserError(f"--config {name}: no such file or recipe; {choices(name, names())}.")
    return path(name)


def checked(name: str, config: Any) -> ConfigDict:
    """What get_config() returned, if it is a config."""
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"--config {name}: get_config() returned {type(config).__name__}, not a ConfigDict."
        )
    return config
