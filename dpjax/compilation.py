"""The persistent compilation cache: what one process compiled, the next one reads.

Programs come out of it bit for bit as they were compiled, so no number changes.
"""

import hashlib
import os
from pathlib import Path
import platform
import sys
import tempfile

import jax

SECONDS = 0.2  # what compiles faster is not kept


def processor() -> str:
    """A name of this processor and of what it can do.

    XLA's programs for a CPU are of its very instruction set: a home folder may be shared
    by machines, and on another one they are refused with pages of text, or crash.
    """
    text = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        known = ("vendor_id", "model name", "flags", "Features", "CPU part")
        text = "\n".join(
            sorted({line for line in info.read_text().splitlines() if line.startswith(known)})
        )
    return f"{platform.machine()}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def folder() -> Path | None:
    """Where the cache is: $DPJAX_CACHE, else dpjax in the user's; None where that is empty."""
    given = os.environ.get("DPJAX_CACHE")
    if given == "":
        return None
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(given or Path(home) / "dpjax").expanduser() / processor()


def use_cache() -> Path | None:
    """Turns the cache on, unless jax's own was chosen already; returns its folder.

    One that can't be written to costs a line and the time to compile, nothing else.
    """
    if jax.config.jax_compilation_cache_dir:
        return None
    try:
        where = folder()
        if where is None:
            return None
        where.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=where):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home
        print(
            f"dpjax: no compilation cache: {error} (DPJAX_CACHE names another folder).",
            file=sys.stderr,
        )
        return None
    jax.config.update("jax_compilation_cache_dir", str(where))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SECONDS)
    return where
