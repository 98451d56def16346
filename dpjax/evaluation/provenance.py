"""What a result was measured with: machine, versions of libraries, commit of dpjax."""

from configparser import ConfigParser, Error
from importlib import metadata
import os
from pathlib import Path
import platform
import subprocess
from typing import Any

# The libraries that a result may depend on, and below them the simulators.
PACKAGES = (
    *("dpjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"),
    *("gym-pusht", "pymunk", "metaworld", "mujoco"),
)
PACKAGE = Path(__file__).resolve().parents[1]  # the folder dpjax/
# Pathspecs for git: only changes of these files count as changes of the code.
CODE = (":(top)*.py", ":(top)requirements.txt")


def provenance() -> dict[str, Any]:
    """Machine, commit and versions, ready for JSON."""
    return {**machine(), "commit": commit(), "versions": versions()}


def machine() -> dict[str, str]:
    """Processor, cores, memory, accelerators and Python, as the machine reports them."""
    import jax  # here, since nothing else in this file needs it

    # The processor's model is in /proc/cpuinfo on Linux. Elsewhere its architecture has to do.
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model  # ARM lists no name
    # The cores that this process may use, where the system tells; otherwise the machine's.
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices = jax.local_devices()
    return {
        "machine": f"{model}, {cores} cores{_memory()}",
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "python": platform.python_version(),
    }


def _memory() -> str:
    """The machine's memory, such as ", 16 GiB"; empty on a system without sysconf (Windows)."""
    if not hasattr(os, "sysconf"):
        return ""
    return f", {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"


def versions() -> dict[str, str]:
    """{package: its installed version}, for dpjax and the libraries that results depend on."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def commit() -> str:
    """The commit of dpjax's own checkout, with "+changes" if code or pinned versions differ.

    An installed dpjax may lie inside somebody else's repository, such as in a virtual environment
    there. That repository's commit says nothing about dpjax, so this returns "installed <version>".
    """
    try:
        if not _is_own_checkout(Path(_git("rev-parse", "--show-toplevel"))):
            return f"installed {_version('dpjax')}"
        # Other files, such as results that were just written, do not change the code.
        changed = _git("status", "--porcelain", "--untracked-files=no", "--", *CODE)
        return _git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):  # no git, or no repository
        return f"installed {_version('dpjax')}"


def _git(*arguments: str) -> str:
    """What git prints in the package's folder; raises CalledProcessError if git fails."""
    # Captured, so that git's complaints do not reach the terminal.
    done = subprocess.run(
        ["git", *arguments], cwd=PACKAGE, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _is_own_checkout(top: Path) -> bool:
    """Whether the repository at `top` tracks this package, and its setup.cfg names dpjax."""
    # <top>/dpjax must be this very folder. In a virtual environment the package lies deeper.
    if not (top / PACKAGE.name).exists() or not PACKAGE.samefile(top / PACKAGE.name):
        return False
    # Somebody may have copied the folder dpjax/ into the root of another project.
    setup = ConfigParser()
    try:
        setup.read(top / "setup.cfg", encoding="utf-8")
    except (Error, UnicodeDecodeError):  # another project's file, not one of setuptools
        return False
    if setup.get("metadata", "name", fallback="") != "dpjax":
        return False
    # A copy that git does not track is not part of the commit either.
    return bool(_git("ls-files", "--", "__init__.py"))
