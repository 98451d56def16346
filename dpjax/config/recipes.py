"""Recipes (the configs that come with dpjax), and the demonstrations that come with dpjax.

A recipe is a Python file with a function `get_config()`. It can start from another recipe's config:
`load(name)`. Recipes are in `configs/` of a checkout, and in `dpjax/recipes/` of a wheel.
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
    # A wheel has them inside the package, so that no package `configs` is installed beside it.
    carried = PACKAGE / "recipes"
    return carried if carried.is_dir() else PACKAGE.parent / "configs"


def names() -> list[str]:
    """The names of the recipes."""
    # configs/__init__.py makes the folder a package and is not a recipe.
    return sorted(file.stem for file in folder().glob("*.py") if file.stem != "__init__")


def path(name: str) -> Path:
    """The file of a recipe; raises UserError for an unknown name."""
    if name not in names():
        raise UserError(f"recipe {name!r} is unknown; {choices(name, names())}.")
    return folder() / f"{name}.py"


def load(name: str) -> ConfigDict:
    """The config of a recipe."""
    # Executed by its path, which works in a checkout and in a wheel alike.
    return runpy.run_path(str(path(name)))["get_config"]()


def demonstrations(name: str) -> str:
    """The directory of the demonstrations of that name, for `config.data.dir`.

    `demonstrations/<name>` in the current folder has precedence over the one that comes with dpjax.
    """
    # In this order: the current folder, an installed wheel, a checkout.
    here = Path("demonstrations", name)
    carried = PACKAGE / "demonstrations" / name
    in_checkout = PACKAGE.parent / "demonstrations" / name
    for directory in (here, carried, in_checkout):
        if directory.is_dir():
            return str(directory)
    # Reading the data reports that the directory does not exist.
    return str(here)


def read(text: str) -> ConfigDict:
    """The config that --config names.

    text: a recipe or a file, perhaps with ":argument", which `get_config(argument)` gets. Raises
    UserError, with a line number, for an error inside the file.
    """
    # "custom:state" is the recipe "custom" with the argument "state".
    name, colon, argument = text.partition(":")
    file = find(name)
    # The file may raise anything, which becomes a UserError. Those of dpjax stay as they are.
    try:
        get_config = runpy.run_path(str(file)).get("get_config")
        if get_config is None:
            raise UserError(f"--config {name} has no get_config(); see configs/base.py.")
        return checked(name, get_config(argument) if colon else get_config())
    except UserError:
        raise
    except Exception as error:
        # The traceback may end inside a library. What the user can mend is the config file, so the
        # error names the last line of it.
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == str(file)]
        where = f" line {lines[-1]}" if lines else ""
        raise UserError(f"--config {name}{where}: {type(error).__name__}: {error}.") from error


def find(name: str) -> Path:
    """The file that --config names: a path if `name` has a folder or ".py", otherwise a recipe.

    Raises UserError if there is no such file or recipe.
    """
    # An existing file has precedence over a recipe of the same name.
    file = Path(name)
    if file.is_file():
        return file
    # A path that does not exist. The user may mean a similar file of that folder, or a recipe.
    if file.suffix == ".py" or len(file.parts) > 1:
        near = sorted(str(other) for other in file.parent.glob("*.py"))
        hint = f"did you mean the recipe {file.stem!r}? " if file.stem in names() else ""
        raise UserError(f"--config {name}: no such file; {hint}{choices(name, near)}.")
    # A name without a folder or ".py".
    if name not in names():
        raise UserError(f"--config {name}: no such file or recipe; {choices(name, names())}.")
    return path(name)


def checked(name: str, config: Any) -> ConfigDict:
    """Returns `config`, the result of get_config(); raises UserError unless it is a ConfigDict."""
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"--config {name}: get_config() returned {type(config).__name__}, not a ConfigDict."
        )
    return config
