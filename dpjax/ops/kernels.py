"""The switch between the fast forms of operations and XLA's own.

Networks have a static field `kernels` and hand it to every operation of this package:

- "auto": the fast form, on a platform that has one. What is fast depends on how a version of
  XLA compiles it, so this needs a jaxlib that the forms were tried with; otherwise XLA's own.
- "xla": XLA's own operation everywhere. Whoever suspects a fast form can leave it out.
"""

from collections.abc import Callable
import functools
import logging

import jax
from jax import lax

from dpjax.core import runtime
from dpjax.core.errors import UserError, choices

Array = jax.Array

KERNELS = ("auto", "xla")

log = logging.getLogger("dpjax")


def is_fast(kernels: str, platform: str = "cpu") -> bool:
    """Whether `kernels` stands for the fast forms of this platform, "cpu" or "cuda".

    Raises UserError if `kernels` is not one of KERNELS.
    """
    if kernels not in KERNELS:
        raise UserError(
            f"kernels={kernels!r} is unknown; {choices(kernels, KERNELS)}.", argument="kernels"
        )
    if kernels == "xla":
        return False
    if runtime.is_tried(platform):
        return True
    warn_untried(platform)
    return False


@functools.cache
def warn_untried(platform: str) -> None:
    """Logs once per process and platform that "auto" means XLA's own operations here."""
    # Programs for a GPU hold a CPU's forms too, until they are lowered: no warning about those.
    if platform == "cpu" and jax.default_backend() != "cpu":
        return
    log.warning(
        "jaxlib %s was not tried with dpjax's fast kernels for %s (tried: %s): XLA's own "
        "operations are used, which can be slower.",
        runtime.jaxlib_version(),
        platform,
        ", ".join(f"{version}x" for version in runtime.TRIED[platform]),
    )


def by_platform(
    kernels: str,
    *args: Array,
    xla: Callable[..., Array],
    cpu: Callable[..., Array],
    cuda: Callable[..., Array] | None = None,
) -> Array:
    """The operation on `args` in the form of the platform that it is compiled for.

    xla: XLA's own operation, for all platforms without a fast form. cpu, cuda: fast forms.
    """
    # Each platform has its own list of jaxlibs: one may be tried on a GPU alone.
    forms = {}
    if is_fast(kernels, "cpu"):
        forms["cpu"] = cpu
    # No warning here: whoever computes on a CPU need not hear of GPUs.
    if cuda is not None and kernels == "auto" and runtime.is_tried("cuda"):
        forms["cuda"] = cuda
    # Which platform it is, is known only when the program is lowered: it may be exported.
    return lax.platform_dependent(*args, **forms, default=xla) if forms else xla(*args)
