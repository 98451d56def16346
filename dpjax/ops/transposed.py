"""Transposed weights: what a CPU reads at the speed of its memory while it samples actions.

A robot samples for one observation at a time (batch 1), and then the time goes into reading the
weights. XLA's CPU backend copies the right operand of every product into a layout of its own,
and reads a large kernel W [F, G] there at 8 GB/s. The same numbers stored as Wᵀ [G, F], on the
left of the product, it reads at 18 to 20 GB/s, where the memory gives 22. So

    x W = (Wᵀ xᵀ)ᵀ.                                                         (1)

`inference_params` stores the transposed kernels once, outside of the compiled program. Training
and accelerators keep W.

A network asks for a kernel by `kernel_param`, which takes whichever of the two the params have,
and multiplies by `dot`, which knows both.
"""

from collections.abc import Callable, Iterable, Mapping
import math
from typing import Any, NamedTuple

import chex
from flax import linen as nn
import jax
from jax import lax
import jax.numpy as jnp

from dpjax.core.types import Params
from dpjax.ops.kernels import is_fast

Array = jax.Array

# Numbers in a kernel from which on it is transposed, 1 MiB in float32. Reading smaller ones
# takes no time that counts: with all of its kernels transposed the U-Net 64-128-256 gained 2 %
# at batch 1 and lost 3 % at batch 16.
LARGE_KERNEL = 2**18
# From this batch size on the arithmetic takes the time, not the reading: Wᵀ is then the right
# operand, which is as fast as W there. The U-Net 64-128-256 became 1.25 times as fast at batch
# 256 and 1.02 times at 64, the U-Net 256-512-1024 1.22 times at 64; at 32 it would be 0.88.
LARGE_BATCH = 64


class Transposed(NamedTuple):
    """A kernel [F, G] or [k, C, D], stored with its last axis first: [G, F] or [D, k, C]."""

    array: Array

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the kernel itself."""
        return (*self.array.shape[1:], self.array.shape[0])


Kernel = Array | Transposed


def inference_params(params: Params, platforms: Iterable[str], kernels: str = "auto") -> Params:
    """The params in the layout that sampling actions wants on these platforms.

    platforms: where the program will run, such as ["cpu"]. If they are CPUs alone, large kernels
        of the denoiser are transposed (1); otherwise these are the params themselves.
    kernels: that of the networks; "xla" leaves the params as they are.
    """
    # A program for several platforms has one set of params: those of accelerators.
    # Why not inside the program: transposing there costs as much as it gains where there are
    # few evaluations, and XLA would merge it with the product into a form slower than x W.
    if set(platforms) != {"cpu"} or not is_fast(kernels):
        return params
    return {**params, "denoiser": transpose(params["denoiser"])}


def transpose(params: Any, min_size: int = LARGE_KERNEL) -> Any:
    """A tree of params with "transposed" in place of every large "kernel" of 2 or 3 axes.

    min_size: numbers in a kernel from which on it is large.
    All other leaves are the same objects: biases, kernels of images (4 axes), small kernels.
    """
    if not isinstance(params, Mapping):
        return params
    # The layers inside first, then this layer's own kernel.
    tree = {key: transpose(value, min_size) for key, value in params.items()}
    if is_transposable(tree.get("kernel"), min_size):
        # [F, G] -> [G, F], [k, C, D] -> [D, k, C]
        tree["transposed"] = jnp.moveaxis(tree.pop("kernel"), -1, 0)
    return tree


def is_transposable(kernel: Any, min_size: int) -> bool:
    """Whether the value of a "kernel" is an array for `transpose`."""
    # A layer may itself be called "kernel": then this is a dict without axes.
    if getattr(kernel, "ndim", 0) not in (2, 3):
        return False
    return math.prod(kernel.shape) >= min_size and jnp.issubdtype(kernel.dtype, jnp.floating)


def kernel_param(module: nn.Module, init: Callable, shape: tuple[int, ...], *args: Any) -> Kernel:
    """The module's parameter "kernel", or its Transposed where the params have that.

    init, args: the initializer `(rng, shape, *args) -> Array`.
    """
    # In training and at initialization: flax creates the parameter or looks it up.
    if not module.has_variable("params", "transposed"):
        return module.param("kernel", init, shape, *args)
    # flax checks the shape of a parameter, but not of a variable.
    kernel = Transposed(module.get_variable("params", "transposed"))
    chex.assert_equal(kernel.shape, shape)
    return kernel


def as_matrix(x: Array) -> Array:
    """[..., F] -> [N, F]. F may be 0: an inpainting policy has no features."""
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def matmul_2d(x: Array, kernel: Array) -> Array:
    """x [..., F] times kernel [F, G], as a product of two matrices."""
    # The gradient of a product of three axes transposes all of x before it multiplies, which
    # takes XLA's CPU backend twice the time of the same product of two axes.
    return (as_matrix(x) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


def is_at_least(batch: Any, least: int) -> bool:
    """Whether a batch size reaches `least`; not if it is a symbol, as in `jax.export`."""
    return isinstance(batch, int) and batch >= least


def taps(kernel: Kernel) -> list[Kernel]:
    """The k kernels [C, D] of a kernel [k, C, D]."""
    size = kernel.shape[0]
    if isinstance(kernel, Transposed):
        return [Transposed(kernel.array[:, tap]) for tap in range(size)]
    # The gradient of a split is one concatenation; that of slices is a sum of padded kernels.
    return [part[0] for part in lax.split(kernel, (1,) * size)]


def product(left: Array, right: Array) -> Array:
    """[M, K], [N, K] -> [M, N]."""
    return lax.dot_general(left, right, (((1,), (1,)), ((), ())))


def dot(x: Array, kernel: Kernel) -> Array:
    """x [..., F] times kernel [F, G], or times [k, C, G] with k C = F: [..., G]."""
    if not isinstance(kernel, Transposed):
        return matmul_2d(x, kernel.reshape(-1, kernel.shape[-1]))
    outputs = kernel.shape[-1]
    weights = kernel.array.reshape(outputs, -1)  # [G, F]
    if is_at_least(x.shape[0], LARGE_BATCH):
        # x W with the stored Wᵀ on the right.
        y = product(as_matrix(x), weights)
    else:
        # Equation (1). Without the barrier XLA rewrites it into x W with a transposed right
        # operand, which is 3 to 4 times slower than W there.
        y = lax.optimization_barrier(product(weights, as_matrix(x))).T
    return y.reshape(*x.shape[:-1], outputs)


def dense(x: Array, kernel: Kernel, *, kernels: str = "auto") -> Array:
    """The product of a dense layer: x [..., F] times kernel [F, G] -> [..., G]."""
    # Transposed params decide by themselves: XLA has no operation of its own for them.
    if isinstance(kernel, Transposed) or is_fast(kernels):
        return dot(x, kernel)
    return x @ kernel
