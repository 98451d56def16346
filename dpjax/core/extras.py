"""Optional libraries: imported where they are used; a missing one becomes a one-line error."""

import importlib
from types import ModuleType

from dpjax.core.errors import UserError


def require(name: str, extra: str) -> ModuleType:
    """Returns the module `name`, which dpjax's extra `extra` (setup.cfg) installs.

    Call it inside the function that needs the module, so that everything else works without
    the library. Raises a UserError with the command that installs it if it is missing; an
    import error from inside the library keeps its traceback.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # The library itself may be installed and lack one of its own dependencies.
        if error.name is None or name.split(".")[0] != error.name.split(".")[0]:
            raise
    raise UserError(f"{name} is not installed: pip install 'dpjax[{extra}]'.")
