"""Settings of a process: memory and libraries of the CPU backend, and the compilation cache.

`set_up` is called before jax looks at its devices. Elsewhere than on Linux with glibc, or with
a jaxlib that the settings were not tried with, it does nothing, and programs are the same but
slower.

`use_cache` turns on jax's persistent compilation cache: a program that one process compiled is
read from disk by the next one, bit for bit, so no number changes.
"""

import ctypes
import hashlib
import logging
import os
from pathlib import Path
import platform
import tempfile

import jax
import jaxlib.version

# Versions of jaxlib that settings and fast kernels were tried with, per platform.
TRIED = {"cpu": ("0.10.",), "cuda": ("0.10.", "0.11.")}

# Parameters of glibc's mallopt, by their numbers in malloc.h.
TRIM_THRESHOLD = -1
MMAP_MAX = -4

# XLA's CPU backend hands products, sums and 2-D convolutions to the library YNNPACK; Eigen's
# convolutions are faster: a ResNet-18 and its gradient take 0.69 of the time (`experiments/cpu`).
# The minus takes one kind of operation out of XLA's own choice for YNNPACK; a list of our own
# would lose the rest of that choice. XLA ends the process at a flag that it does not know.
YNNPACK_FLAG = "--xla_cpu_experimental_ynn_fusion_type"
YNNPACK_CHOICE = "-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"

# XLA's CPU backend drops optimization barriers before it fuses, unless this pass is left out.
KEEP_BARRIERS = {"xla_disable_hlo_passes": "cse_barrier_expander"}

MIN_COMPILE_SECONDS = 0.2  # programs that compile faster are not kept in the cache

log = logging.getLogger("dpjax")


def jaxlib_version() -> str:
    """The version of the jaxlib that is installed, such as "0.10.2"."""
    return jaxlib.version.__version__


def is_tried(platform: str = "cpu") -> bool:
    """Whether what is set and computed for this platform was tried with the installed jaxlib."""
    return jaxlib_version().startswith(TRIED[platform])


def set_up() -> None:
    """Sets up the process of a command: memory and libraries."""
    keep_memory()
    choose_libraries()


def keep_memory() -> None:
    """Keeps freed memory in the process, for the next call of a program (glibc only)."""
    # Otherwise glibc returns each call's temporaries to the kernel, and the next call faults them
    # in again, page by page: 8 % of the time of a ResNet-18 and its gradient (`experiments/cpu`).
    # mallopt is glibc's: macOS, Windows and musl have allocators of their own.
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(TRIM_THRESHOLD, -1)  # the heap never shrinks
    libc.mallopt(MMAP_MAX, 0)  # large arrays are in the heap too
    # glibc grows the heap of the main thread alone without a limit. With synchronous dispatch
    # temporaries are allocated in the thread that calls the program, which is the main one.
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def choose_libraries() -> None:
    """Adds YNNPACK_FLAG to the environment's XLA_FLAGS, unless it is there already."""
    # A user's own choice stays.
    flags = os.environ.get("XLA_FLAGS", "")
    if YNNPACK_FLAG in flags or not is_tried():
        return
    os.environ["XLA_FLAGS"] = f"{flags} {YNNPACK_FLAG}={YNNPACK_CHOICE}".strip()


def compiler_options() -> dict[str, str] | None:
    """Options of `jax.jit` for training steps: on a CPU, optimization barriers are kept."""
    # Without them XLA's CPU backend duplicates shared producers into every consumer and undoes
    # rematerialization.
    return KEEP_BARRIERS if is_tried() and jax.default_backend() == "cpu" else None


def processor() -> str:
    """A name for the kind of processor, such as "x86_64-1a2b3c4d5e6f"."""
    # XLA compiles for the instruction set of the machine. Where a home folder is shared by
    # several machines, another one's programs are refused with pages of text, or crash.
    # /proc/cpuinfo lists the instruction sets; elsewhere the name has to do.
    text = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        fields = ("vendor_id", "model name", "flags", "Features", "CPU part")
        lines = {line for line in info.read_text().splitlines() if line.startswith(fields)}
        text = "\n".join(sorted(lines))
    return f"{platform.machine()}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def cache_folder() -> Path | None:
    """The cache's folder: in $DPJAX_CACHE, otherwise in ~/.cache/dpjax.

    None where $DPJAX_CACHE is set and empty, which turns the cache off.
    """
    chosen = os.environ.get("DPJAX_CACHE")
    if chosen == "":
        return None
    user_cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(chosen or Path(user_cache) / "dpjax").expanduser() / processor()


def use_cache() -> Path | None:
    """Turns the compilation cache on, unless the user chose jax's own; returns its folder.

    A folder that cannot be written costs a warning and the time to compile, nothing else.
    """
    if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return None
    try:
        folder = cache_folder()
        if folder is None:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        # jax finds out only after compiling that it cannot write.
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, RuntimeError) as error:  # RuntimeError: the user has no home folder
        log.warning("no compilation cache: %s (DPJAX_CACHE names another folder).", error)
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_COMPILE_SECONDS)
    return folder
