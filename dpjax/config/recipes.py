"""Recipes: the configs that come with dpjax, by name.

In a checkout they lie in `configs/`; a wheel carries them as `dpjax/recipes/`.
"""

from pathlib import Path
import runpy

from ml_collections import ConfigDict

from dpjax.core.errors import UserError, choices

PACKAGE = Path(__file__).parents[1]


def folder() -> Path:
    """The folder of the recipes."""
    carried = PACKAGE / "recipes"
    return carried if carried.is_dir() else PACKAGE.parent / "configs"


def path(name: str) -> Path:
    """The file of a recipe."""
    file = folder() / f"{name}.py"
    if not file.is_file():
        known = [other.stem for other in folder().glob("*.py") if other.stem != "__init__"]
        raise UserError(f"recipe {name!r} is unknown; {choices(name, known)}.")
    return file


def load(name: str) -> ConfigDict:
    """The config of a recipe."""
    return runpy.run_path(str(path(name)))["get_config"]()
