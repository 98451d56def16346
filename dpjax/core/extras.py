"""Optional libraries: imported on first use; a missing one raises a one-line error."""

import importlib
from types import ModuleType

from dpjax.core.errors import UserError


class MissingExtra(UserError):
    """A library is not installed; says which extra brings it."""


def require(name: str, extra: str) -> ModuleType:
    """Imports the module `name`, which belongs to the extra `extra` of dpjax (setup.cfg).

    Call it inside the function that needs the module, so that everything else works without
    the library.

    Raises UserError with the command to install it if the library is missing. An import error
    from inside the library keeps its traceback.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        missing = error.name or ""  # the module that Python did not find
        # The library may be installed but lack one of its own dependencies. Installing the extra
        # would not help then, so that error is passed on.
        if missing.split(".")[0] != name.split(".")[0]:
            raise
    raise MissingExtra(f"{missing} is not installed: pip install 'dpjax[{extra}]'.")
