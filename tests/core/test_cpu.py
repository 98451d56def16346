"""What a process asks of the C library and of XLA."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpjax.core import runtime

FAULTS = """
import resource
from dpjax import cpu
{set_up}
import jax, jax.numpy as jnp
f = jax.jit(lambda x: (jnp.cumsum(x, 0) * jnp.cumsum(x, 1)).sum())
x = jnp.ones((2048, 2048))
faults, calls = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt, []
for _ in range(8):  # a heap may still grow in a call: the least says what a call costs
    before = faults()
    f(x).block_until_ready()
    calls.append(faults() - before)
print(min(calls))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc's allocator")
def test_a_calls_memory_is_kept_for_the_next():
    def faults(set_up):
        code = FAULTS.format(set_up=set_up)
        env = {**os.environ, "JAX_PLATFORMS": "cpu"}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env)
        return int(done.stdout), done.stderr.decode()

    usual, _ = faults("")
    kept, said = faults("cpu.set_up()")
    assert kept < usual / 10, (kept, usual, said)


@pytest.mark.skipif(not runtime.is_tried(), reason="XLA's settings were tried with another jaxlib")
@pytest.mark.parametrize("given", ["", "--xla_cpu_enable_fast_math=false"])
def test_flags_are_added_once_and_to_what_is_there(monkeypatch, given):
    monkeypatch.setenv("XLA_FLAGS", given)
    runtime.choose_libraries()
    once = os.environ["XLA_FLAGS"]
    runtime.choose_libraries()
    assert once.startswith(given) and once.count(runtime.FLAG) == 1
    assert os.environ["XLA_FLAGS"] == once


def test_a_users_own_choice_and_another_jaxlib_are_left_alone(monkeypatch):
    own = f"{runtime.FLAG}="
    monkeypatch.setenv("XLA_FLAGS", own)
    runtime.choose_libraries()
    assert os.environ["XLA_FLAGS"] == own
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(runtime.metadata, "version", lambda name: "0.9.1")
    runtime.choose_libraries()
    assert os.environ["XLA_FLAGS"] == ""


@pytest.mark.skipif(
    runtime.compiler_options() is None, reason="of a CPU and a jaxlib that was tried"
)
def test_barriers_hold_where_they_are_asked_for():
    def program(options):
        f = lambda x: jnp.sin(jax.lax.optimization_barrier(2 * x + 1))
        return jax.jit(f, compiler_options=options).lower(jnp.ones(99)).compile().as_text()

    assert "opt-barrier" not in program(None)  # else the option is not needed any more
    assert "opt-barrier" in program(runtime.compiler_options())


def test_another_jaxlib_is_told_nothing_of_barriers(monkeypatch):
    monkeypatch.setattr(runtime.metadata, "version", lambda name: "0.9.1")
    assert runtime.compiler_options() is None


def test_large_pages_hold_the_same_numbers():
    rng = np.random.default_rng(0)
    tree = {"large": rng.normal(size=2**20), "small": rng.normal(size=9)}
    held = jax.tree.map(jnp.asarray, jax.tree.map(np.float32, tree))
    given = runtime.use_large_pages(held)
    assert 0 <= given <= 3  # 4 MiB and the two pages at its ends share three at most
    for name, x in tree.items():
        np.testing.assert_array_equal(held[name], np.float32(x))


def test_large_pages_are_not_asked_for_elsewhere(monkeypatch):
    monkeypatch.setattr(runtime.platform, "system", lambda: "Darwin")
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda name: 1 / 0)
    assert runtime.use_large_pages({"x": jnp.ones(2**20)}) == 0
