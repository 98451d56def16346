"""What a process that trains or acts on CPUs asks of the C library and of XLA.

Called before jax has looked at its devices; elsewhere than on Linux and glibc, or with
another jaxlib, it does nothing, and programs are the same but slower.

The persistent compilation cache: what one process compiled, the next one reads.

Programs come out of it bit for bit as they were compiled, so no number changes.
"""

import ctypes
import hashlib
from importlib import metadata
import os
from pathlib import Path
import platform
import sys
import tempfile
from typing import Any

import jax

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # glibc's names for mallopt
COLLAPSE, LARGE_PAGE = 25, 2**21  # Linux 6.1's MADV_COLLAPSE; bytes
# XLA's CPU hands products, sums and 2-D convolutions to YNNPACK; Eigen's convolutions are
# faster: a ResNet-18 and its gradient in 0.69 of the time (`experiments/cpu`). The minus
# takes one kind from XLA's own choice, of which a list of our own would lose the rest.
# A jaxlib that does not know a flag ends the process, so only those that were tried.
FLAG = "--xla_cpu_experimental_ynn_fusion_type"
CHOICE = "-LIBRARY_FUSION_TYPE_INDIVIDUAL_CONVOLUTION"
JAXLIB = "0.10."
# XLA's CPU drops optimization barriers before it fuses, unless that pass is left out.
FENCES = {"xla_disable_hlo_passes": "cse_barrier_expander"}


def keep_memory() -> None:
    """Memory that was freed stays with the process, for the next call of a program.

    A call's temporaries are else given back to the kernel and come as new pages, zeroed
    one by one: 8 % of that ResNet's time (`experiments/cpu`). They are allocated in the
    thread that calls where dispatch is synchronous, and only the main one's heap grows
    without end: hence the last line.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(TRIM_THRESHOLD, -1)
    libc.mallopt(MMAP_MAX, 0)
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def is_tried() -> bool:
    """Whether XLA's settings here were tried with the jaxlib that is installed."""
    return metadata.version("jaxlib").startswith(JAXLIB)


def compiler_options() -> dict[str, str] | None:
    """For `jax.jit` of training steps: on a CPU, optimization barriers that hold.

    Without them XLA makes what several read as many times over, inside of each, and
    remembers after all what remat was to compute again.
    """
    return FENCES if is_tried() and jax.default_backend() == "cpu" else None


def choose_libraries() -> None:
    """Adds FLAG to XLA_FLAGS, unless it is there already."""
    flags = os.environ.get("XLA_FLAGS", "")
    if FLAG in flags or not is_tried():
        return
    os.environ["XLA_FLAGS"] = f"{flags} {FLAG}={CHOICE}".strip()


def use_large_pages(tree: Any) -> int:
    """Asks Linux to hold these arrays in pages of 2 MiB; returns how many it gave.

    A plan at batch 1 reads all of its weights a step, and looks up as many pages: the U-Net
    256-512-1024 was 1.01 to 1.04 times as fast. A kernel before 6.1, or one that has no such
    page free, leaves them as they are, and so does this an accelerator's.
    """
    if platform.system() != "Linux" or jax.default_backend() != "cpu":
        return 0
    madvise, given = ctypes.CDLL(None).madvise, 0
    for leaf in jax.tree.leaves(tree):
        if leaf.nbytes >= LARGE_PAGE // 2:
            at = leaf.unsafe_buffer_pointer()
            # Whole pages, those at the ends with a neighbour: arrays lie side by side.
            for page in range(at - at % LARGE_PAGE, at + leaf.nbytes, LARGE_PAGE):
                size = ctypes.c_size_t(LARGE_PAGE)
                given += madvise(ctypes.c_void_p(page), size, COLLAPSE) == 0
    return given


def set_up() -> None:
    """What is for a whole process."""
    keep_memory()
    choose_libraries()


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


def cache_folder() -> Path | None:
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
        where = cache_folder()
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
