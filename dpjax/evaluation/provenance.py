"""What a number was measured with: machine, versions of libraries, commit of dpjax."""

from configparser import ConfigParser, Error
from importlib import metadata
import os
from pathlib import Path
import platform
import subprocess
from typing import Any

PACKAGES = (
    *("dpjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"),
    *("gym-pusht", "pymunk", "metaworld", "mujoco"),
)
PACKAGE = Path(__file__).resolve().parents[1]  # the folder dpjax/
# Changes of these count as changes of the code. Numbers that were just written do not.
CODE = (":(top)*.py", ":(top)requirements.txt")


def provenance() -> dict[str, Any]:
    """All of it: machine, commit and versions."""
    return {**machine(), "commit": commit(), "versions": versions()}


def machine() -> dict[str, str]:
    """Processor, cores, memory, accelerators and Python, as the machine reports them."""
    import jax  # here, since only this function needs the devices

    # Linux knows the processor's model; elsewhere its architecture has to do.
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    # The cores that this process may use, where the system can tell.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices = jax.local_devices()
    return {
        "machine": f"{model}, {cores} cores{_memory()}",
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "python": platform.python_version(),
    }


def _memory() -> str:
    """The machine's memory, or nothing where the system has no sysconf (Windows)."""
    if not hasattr(os, "sysconf"):
        return ""
    return f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"


def versions() -> dict[str, str]:
    """{package: its installed version} of what the numbers depend on, dpjax among them."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """The commit of dpjax's own checkout, with "+changes" if code or pins differ from it.

    An installed dpjax may lie inside somebody else's repository, such as in a virtual environment
    there. That repository's commit says nothing about dpjax: the result is "installed <version>".
    """
    try:
        if not _is_own_checkout(Path(_git("rev-parse", "--show-toplevel"))):
            return f"installed {_version('dpjax')}"
        # Other files, such as results that were just written, do not change what the code does.
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", *CODE)
        return _git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        return f"installed {_version('dpjax')}"


def _git(*arguments: str) -> str:
    """What git prints in the package's folder; CalledProcessError if it fails."""
    done = subprocess.run(
        ["git", *arguments], cwd=PACKAGE, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _is_own_checkout(top: Path) -> bool:
    """Whether the repository `top` tracks this package as dpjax/, and its setup.cfg names it."""
    # The same folder, not one of the same name: an environment's copy lies deeper.
    if not (top / PACKAGE.name).exists() or not PACKAGE.samefile(top / PACKAGE.name):
        return False
    # Somebody may have copied dpjax into the root of a project of their own.
    setup = ConfigParser()
    try:
        setup.read(top / "setup.cfg", encoding="utf-8")
    except (Error, UnicodeDecodeError):  # another project's, in a form of its own
        return False
    if setup.get("metadata", "name", fallback="") != "dpjax":
        return False
    # A copy that was never added to the repository is not of its commit either.
    return bool(_git("ls-files", "--", "__init__.py"))
