"""Weights that an acting CPU reads row by row, at the speed of its memory.

A plan for a robot, batch 1, waits for the weights. XLA's CPU lays out the right operand
of every product anew, and reads a large W [F, G] there at 8 GB/s; the same numbers as
Wᵀ [G, F], on the left, at 18 to 20 of the 22 GB/s that its memory gives. So

    x W = (Wᵀ xᵀ)ᵀ.                                                         (1)

`turn` makes the Wᵀ of a tree of params once, outside of the compiled plan: inside, it
costs as much as it gains where there are few steps, and XLA would fold it into the product,
in a form that is slower than x W. Where many are planned for at once that form is the faster
one, and `dot` takes it: a program knows its batch. A Wᵀ that XLA would give to one thread is
made in two halves, whose products run side by side. A module gets its weights by `weights`,
which takes whichever the params have, and multiplies by `dot`. Training and accelerators
never turn.
"""

from collections.abc import Callable, Mapping
import math
from typing import Any, NamedTuple

import chex
from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

Array = jax.Array

# Kernels below 1 MiB are not what a plan waits for: with all of its kernels turned the U-Net
# 64-128-256 gained 2 % at batch 1 and lost 3 % at batch 16.
LARGE = 2**18
# Up to here a product of few columns is one thread's work; larger ones XLA splits itself.
# Whole plans of the U-Net 256-512-1024 took 0.93 to 0.96 of the time at batch 1.
HALVED = 2**21
# From this batch on a plan waits for its arithmetic: Wᵀ is then the right operand, and a
# convolution one product a tap, as fast as with W. Whole plans became 1.25 times as fast at
# batch 256, 1.02 (U-Net 64-128-256) and 1.22 (256-512-1024) at 64, and would be 0.88 at 32.
MANY = 64


class Rows(NamedTuple):
    """A kernel [F, G] or [k, C, D] with its last axis first, [G, F] or [D, k, C], in parts."""

    parts: tuple[Array, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The kernel's."""
        return (*self.parts[0].shape[1:], sum(len(part) for part in self.parts))


Kernel = Array | Rows


def turn(params: Any, at_least: int = LARGE) -> Any:
    """Params with "rows" in place of every "kernel" of `at_least` numbers and 2 or 3 axes.

    All other leaves are the same objects: biases, kernels of images (4 axes), rows.
    """
    if not isinstance(params, Mapping):
        return params
    made = {key: turn(value, at_least) for key, value in params.items()}
    if is_turnable(made.get("kernel"), at_least):
        made["rows"] = halves(jnp.moveaxis(made.pop("kernel"), -1, 0))
    return made


def halves(turned: Array) -> tuple[Array, ...]:
    """[G, …] as it is, or its two halves."""
    if len(turned) % 2 or not LARGE <= turned.size <= HALVED:
        return (turned,)
    return tuple(jnp.split(turned, 2))


def is_turnable(kernel: Any, at_least: int) -> bool:
    """Whether what a "kernel" is called is one for `turn`."""
    axes = getattr(kernel, "ndim", 0)
    large = axes in (2, 3) and math.prod(kernel.shape) >= at_least
    return large and jnp.issubdtype(kernel.dtype, jnp.floating)


def weights(module: nn.Module, init: Callable, shape: tuple[int, ...], *args) -> Kernel:
    """The module's "kernel", or its Rows where the params were turned; args: init's."""
    if not module.has_variable("params", "rows"):
        return module.param("kernel", init, shape, *args)
    rows = Rows(module.get_variable("params", "rows"))
    chex.assert_equal(rows.shape, shape)
    return rows


def flat(x: Array) -> Array:
    """[..., F] -> [rows, F]; F may be 0, where an observation is not what is told (inpainting)."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def flat_dot(x: Array, kernel: Array) -> Array:
    """x [..., F] times kernel [F, G], all rows of x as one matrix.

    The gradient of a product over three axes transposes all of x before it multiplies:
    XLA's CPU took twice the time of the same rows in two axes.
    """
    return (flat(x) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def reaches(batch, least: int) -> bool:
    """Whether a batch is that large; one that is a symbol (`jax.export`) may be any size: no."""
    return isinstance(batch, int) and batch >= least


def taps(kernel: Kernel) -> list[Kernel]:
    """The k kernels [C, D] of a kernel [k, C, D]."""
    size = kernel.shape[0]
    if isinstance(kernel, Rows):
        return [Rows(tuple(part[:, tap] for part in kernel.parts)) for tap in range(size)]
    # A split's gradient is one concatenation; that of slices adds up as many padded kernels.
    return [weights[0] for weights in lax.split(kernel, (1,) * size)]


def product(left: Array, right: Array) -> Array:
    """[M, K], [N, K] -> [M, N]."""
    return lax.dot_general(left, right, (((1,), (1,)), ((), ())))


def dot(x: Array, kernel: Kernel) -> Array:
    """x [..., F] times kernel [F, G], or [k, C, G] with k C = F: [..., G]."""
    if not isinstance(kernel, Rows):
        return flat_dot(x, kernel.reshape(-1, kernel.shape[-1]))
    columns = flat(x)
    if reaches(x.shape[0], MANY):
        parts = [product(columns, part.reshape(len(part), -1)) for part in kernel.parts]
        return jnp.concatenate(parts, axis=-1).reshape(*x.shape[:-1], kernel.shape[-1])
    parts = [product(part.reshape(len(part), -1), columns) for part in kernel.parts]  # (1)
    # Without the barrier XLA makes x W of it again, with Wᵀ on the right and turned by the
    # product: 3 to 4 times slower than W there.
    y = jnp.concatenate(lax.optimization_barrier(parts))
    return y.T.reshape(*x.shape[:-1], kernel.shape[-1])
