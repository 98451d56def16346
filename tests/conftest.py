"""What several test files share."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest
from support import refusals

from dpjax.core import errors

# Most seconds of the tests are compilation of what then runs for milliseconds.
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
GOLDEN = Path(__file__).parent / "golden"


def pytest_configure(config):
    """Compilation is quick, and what was compiled once is read from the disk in the next run."""
    # XLA reads it once, before it compiles anything; processes that tests start inherit it.
    # Numbers to be compared with those of an ordinary process ask for its compilation.
    if not os.environ.get("DPJAX_TEST_ORDINARY"):
        os.environ["XLA_FLAGS"] = f"{QUICK} {os.environ.get('XLA_FLAGS', '')}"
    if path := os.environ.get("DPJAX_RECORD_REFUSALS"):
        refusals.record(errors.UserError, path)
    os.environ["DPJAX_CACHE"] = ""  # the user's cache is not the tests'; processes inherit this
    cache = getattr(config, "cache", None)  # none under `-p no:cacheprovider`
    if cache is not None:
        jax.config.update("jax_compilation_cache_dir", str(cache.mkdir("compiled")))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


# A file is one worker's, so the files that take minutes must not come last.
SLOW = ("test_kill.py", "test_wheel.py", "test_train.py", "test_transformer.py")


def pytest_collection_modifyitems(items):
    """The slow files first, in the order of SLOW."""
    place = {name: i for i, name in enumerate(SLOW)}
    items.sort(key=lambda item: place.get(item.path.name, len(SLOW)))


@pytest.fixture(scope="session")
def golden():
    """`golden(name)`: the arrays of tests/golden/<name>.npz, {key: array}."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(GOLDEN / f"{name}.npz", allow_pickle=False) as arrays:
            return dict(arrays)

    return load
