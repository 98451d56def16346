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
        missing = error.name or ""
        # The library may be installed and lack a dependency of its own: that is another fault.
        if missing.split(".")[0] != name.split(".")[0]:
            raise
    raise UserError(f"{missing} is not installed: pip install 'dpjax[{extra}]'.")
