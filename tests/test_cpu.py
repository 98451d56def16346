"""What a process asks of the C library and of XLA, and that programs stay the same."""

import os
import subprocess
import sys

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpjax import cpu
from dpjax.nets import resnet

FAULTS = """
import resource
from dpjax import cpu
{set_up}
import jax, jax.numpy as jnp
f = jax.jit(lambda x: (jnp.cumsum(x, 0) * jnp.cumsum(x, 1)).sum())
x = jnp.ones((2048, 2048))
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    f(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
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


@pytest.mark.parametrize("given", ["", "--xla_cpu_enable_fast_math=false"])
def test_flags_are_added_once_and_to_what_is_there(monkeypatch, given):
    monkeypatch.setenv("XLA_FLAGS", given)
    cpu.choose_libraries()
    once = os.environ["XLA_FLAGS"]
    cpu.choose_libraries()
    assert once.startswith(given) and once.count(cpu.FLAG) == 1
    assert os.environ["XLA_FLAGS"] == once


def test_a_users_own_choice_and_another_jaxlib_are_left_alone(monkeypatch):
    own = f"{cpu.FLAG}="
    monkeypatch.setenv("XLA_FLAGS", own)
    cpu.choose_libraries()
    assert os.environ["XLA_FLAGS"] == own
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(cpu.metadata, "version", lambda name: "0.9.1")
    cpu.choose_libraries()
    assert os.environ["XLA_FLAGS"] == ""


@pytest.mark.parametrize("size", [5, 8])
def test_max_pool_equals_flaxs(size):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, size, size + 1, 3)), jnp.float32)
    flax = lambda x: nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    gradient = lambda f: jax.grad(lambda x: jnp.sum(jnp.sin(f(x))))(x)
    for way in (resnet.max_pool, resnet.max_pool_slices):
        np.testing.assert_array_equal(way(x), flax(x))
        np.testing.assert_allclose(*map(gradient, (way, flax)), rtol=1e-6, atol=1e-6)
