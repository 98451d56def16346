"""Two forms of the same function on a CPU: XLA's own, and that of dpjax's networks.

    python -m experiments.cpu.ways

Both take turns in one process; the median of nine calls; memory and libraries as
`dpjax.core.runtime` sets them. Stop other work meanwhile. Writes ways.json.
"""

from collections.abc import Callable
import itertools
import json
from pathlib import Path
import time
from typing import NamedTuple
from unittest import mock

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dpjax.core import errors, runtime
from dpjax.evaluation import provenance
from dpjax.ops import conv1d, conv2d, transposed

HERE = Path(__file__).parent
TURNS = 9
# Pixels and channels of a ResNet-18 at 84 px; steps, channels and taps of the U-Nets.
IMAGES = [(21, 64, 64), (11, 128, 128), (6, 256, 256), (3, 512, 512)]
LARGE = [(16, 256, 256, 5), (8, 512, 512, 5), (4, 1024, 1024, 5)]
SMALL = [(16, 64, 64, 5), (8, 128, 128, 5), (4, 256, 256, 5), (8, 128, 128, 3), (4, 256, 256, 3)]
TIMES = LARGE + SMALL
RNG = np.random.default_rng(0)


class Pair(NamedTuple):
    """Two functions of the same inputs, XLA's own first."""

    name: str
    plain: Callable
    ours: Callable
    inputs: tuple


def normal(*shape) -> jax.Array:
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def gradients(function: Callable) -> Callable:
    """(g, *inputs) -> the gradients of all inputs, g being that of the output."""
    return lambda g, *inputs: jax.vjp(function, *inputs)[1](g)


def with_gradients(name: str, plain: Callable, ours: Callable, *inputs) -> list[Pair]:
    """Both forms of a function, and of its gradients."""
    g = normal(*jax.eval_shape(plain, *inputs).shape)
    return [
        Pair(name, plain, ours, inputs),
        Pair(f"{name}: gradients", gradients(plain), gradients(ours), (g, *inputs)),
    ]


def convolution(size: int, channels: int, features: int, taps: int, stride: int) -> list[Pair]:
    """A convolution of 64 images as in the networks, and its gradients."""
    x = normal(64, size, size, channels)
    kernel = normal(taps, taps, channels, features)
    padding = taps // 2
    plain = lambda x, kernel: conv2d.conv_xla(x, kernel, stride, padding)
    ours = lambda x, kernel: conv2d.conv2d(x, kernel, stride=stride, padding=padding)
    name = f"{taps} × {taps}, stride {stride}, {size} px, {channels} to {features} channels"
    return with_gradients(name, plain, ours, x, kernel)


def along_time(steps: int, inputs: int, outputs: int, taps: int) -> list[Pair]:
    """A convolution of 64 chunks that keeps their steps, without and with `winograd`'s tiles."""
    x = normal(64, steps, inputs)
    kernel = normal(taps, inputs, outputs)
    ours = lambda x, kernel: conv1d.conv_cpu(x, kernel, 1, taps // 2)

    def plain(x, kernel):
        with mock.patch.object(conv1d, "TILED_SIZES", ()):
            return ours(x, kernel)

    name = f"{taps} taps, {steps} steps, {inputs} to {outputs} channels"
    return with_gradients(name, plain, ours, x, kernel)


def rounding(pair: Pair) -> list[float]:
    """Root mean square of both forms' errors, relative to that of the exact numbers."""
    x, kernel = (np.asarray(value, np.float64) for value in pair.inputs)
    around = ((0, 0), *((size // 2,) * 2 for size in kernel.shape[:-2]), (0, 0))
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(x, around), kernel.shape[:-2], tuple(range(1, x.ndim - 1))
    )
    exact = np.tensordot(windows, np.moveaxis(kernel, -2, 0), kernel.ndim - 1)
    size = lambda y: float(np.sqrt(np.mean(np.square(y))))
    forms = (pair.plain, pair.ours)
    return [size(np.asarray(form(*pair.inputs)) - exact) / size(exact) for form in forms]


def pooling() -> list[Pair]:
    """The max pooling of a ResNet at 84 px, 64 images."""
    x = normal(64, 42, 42, 64)
    g = normal(64, 21, 21, 64)
    plain = lambda x: nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    name = "max pooling, 42 px, 64 channels"
    return [
        Pair(name, plain, conv2d.max_pool, (x,)),
        Pair(f"{name}: gradient", gradients(plain), gradients(conv2d.max_pool), (g, x)),
    ]


def weights(batch: int, inputs: int, outputs: int, number: int) -> Pair:
    """`number` products, one after the other, whose weights do not fit in a cache together.

    As XLA multiplies by weights, and transposed, as for sampling.
    """
    kernels = [normal(inputs, outputs) for _ in range(number)]
    transposed_kernels = [transposed.Transposed(kernel.T) for kernel in kernels]

    def chain(x, kernels):
        for kernel in kernels:
            x += 1e-6 * transposed.dot(x, kernel).mean()
        return x

    return Pair(
        f"{number} products of {batch} × {inputs} by {inputs} × {outputs}: turned weights",
        lambda x, plain, _: chain(x, plain),
        lambda x, _, ours: chain(x, ours),
        (normal(batch, inputs), kernels, transposed_kernels),
    )


def timed(pair: Pair) -> dict:
    """Median milliseconds of both, which take turns."""
    calls = [jax.jit(pair.plain), jax.jit(pair.ours)]
    took = [[], []]
    for _ in range(TURNS + 1):
        for call, ms in zip(calls, took):
            start = time.perf_counter()
            jax.block_until_ready(call(*pair.inputs))
            ms.append((time.perf_counter() - start) * 1e3)
    plain, ours = (float(np.median(ms[1:])) for ms in took)
    return {"plain_ms": plain, "ours_ms": ours, "share": ours / plain}


def main() -> int:
    runtime.set_up()
    images = [convolution(*sizes, 3, 1) for sizes in IMAGES]
    times = [along_time(*sizes) for sizes in TIMES]
    pairs = [
        *itertools.chain(*images, *times),
        *convolution(21, 64, 128, 1, 2),
        *pooling(),
        weights(4, 5120, 1024, 12),
        weights(16, 5120, 1024, 12),
        weights(8, 2560, 512, 20),
    ]
    rows = {}
    print("| what | plain, ms | ours, ms | share |\n|---|---|---|---|")
    for pair in pairs:
        row = rows[pair.name] = timed(pair)
        numbers = f"{row['plain_ms']:.1f} | {row['ours_ms']:.1f} | {row['share']:.2f}"
        print(f"| {pair.name} | {numbers} |", flush=True)
    print("\n| error, root mean square | plain | ours |\n|---|---|---|")
    for pair, _ in (*images, *times):
        plain, ours = rows[pair.name]["rounding"] = rounding(pair)
        print(f"| {pair.name} | {plain:.1e} | {ours:.1e} |", flush=True)
    result = {"rows": rows, **provenance.provenance()}
    (HERE / "ways.json").write_text(json.dumps(result, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    errors.run(main)
