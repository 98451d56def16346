"""What a number was measured with: machine, versions, commit."""

from importlib import metadata
import os
from pathlib import Path
import platform
import subprocess

PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"),
    *("gym-pusht", "pymunk", "metaworld", "mujoco"),
)


def machine() -> dict[str, str]:
    """Processor, cores, accelerators and memory, as the machine tells them."""
    import jax  # the devices that the numbers were made on

    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [text for text in cpuinfo.read_text().splitlines() if text.startswith("model name")]
        model = names[0].split(":", 1)[1].strip() if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices = jax.local_devices()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "machine": f"{model}, {cores} cores, {memory:.0f} GiB",
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Installed versions of what the numbers depend on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def provenance() -> dict:
    """All of it: machine, commit, versions."""
    return {**machine(), "commit": commit(), "versions": versions()}


def commit() -> str:
    """The commit of the code that runs, with "+changes" where code or pins differ from it."""
    here = Path(__file__).parent

    def git(*arguments):
        return subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        code = (":(top)*.py", ":(top)requirements.txt")  # not the numbers that were just written
        changed = git("status", "--porcelain", "--untracked-files=no", "--", *code)
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"
