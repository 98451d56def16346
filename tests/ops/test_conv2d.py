"""2-D convolutions and pooling: a CPU's forms against XLA's, gradients included."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.numerics import normal

from dpjax.ops import conv2d


def arrays(*shapes):
    return [normal(seed, *shape) for seed, shape in enumerate(shapes)]


def close(got, want):
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(x, y, atol=2e-5)


@pytest.mark.parametrize(
    "height, width, size, stride, padding",
    [
        (3, 3, 3, 1, 1),  # the last stage of a ResNet at 84 px
        (3, 2, 3, 2, 1),
        (1, 1, 3, 1, 1),  # eight taps see padding alone
        (2, 3, 7, 2, 3),
        (5, 6, 1, 2, 0),  # a shortcut
        (8, 7, 3, 2, 1),
    ],
)
def test_conv2d_is_xlas(height, width, size, stride, padding):
    x, kernel = arrays((2, height, width, 4), (size, size, 4, 5))
    ours = lambda x, kernel: conv2d.conv2d(x, kernel, stride=stride, padding=padding)
    theirs = lambda x, kernel: conv2d.conv_xla(x, kernel, stride, padding)
    (y, back), (want, wants) = jax.vjp(ours, x, kernel), jax.vjp(theirs, x, kernel)
    close(y, want)
    g = normal(2, *y.shape)
    close(back(g), wants(g))


@pytest.mark.parametrize("height, width", [(3, 3), (6, 6), (11, 5), (8, 21)])
def test_tiles_are_xlas(height, width):
    x, kernel = arrays((2, height, width, 4), (3, 3, 4, 5))
    theirs = lambda x, kernel: conv2d.conv_xla(x, kernel, 1, 1)
    (y, back), (want, wants) = jax.vjp(conv2d.conv_tiles, x, kernel), jax.vjp(theirs, x, kernel)
    close(y, want)
    g = normal(2, *y.shape)
    for got, exact in zip(back(g), wants(g), strict=True):
        np.testing.assert_allclose(got, exact, atol=1e-4)  # sums over up to 336 pixels


def products(batch, height, width, size=3, channels=64, stride=1, dtype=jnp.float32):
    """Matrix products in `conv2d` on a CPU; XLA's convolution counts as none."""
    x = jnp.ones((batch, height, width, channels), dtype)
    kernel = jnp.ones((size, size, channels, 64), dtype)
    f = lambda x, kernel: conv2d.conv2d(x, kernel, stride=stride, padding=size // 2)
    lowered = jax.jit(f).trace(x, kernel).lower(lowering_platforms=("cpu",))
    return lowered.as_text().count("stablehlo.dot_general")


def test_tiles_where_they_pay():
    assert products(16, 6, 6) == products(16, 21, 21) == products(64, 3, 3) == 25
    assert products(16, 3, 3) == products(64, 2, 2) == 9  # one per tap
    others = [(15, 6, 6), (16, 4, 4), (16, 7, 7), (64, 6, 6, 5), (64, 6, 6, 3, 32)]
    assert not any(products(*shape) for shape in others)
    assert not products(64, 6, 6, stride=2) and not products(64, 6, 6, dtype=jnp.bfloat16)


@pytest.mark.parametrize("height, width", [(7, 8), (6, 6), (1, 2), (5, 3)])
def test_max_pool_is_xlas_where_pixels_are_equal_too(height, width):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 3, (2, height, width, 3)), jnp.float32)
    theirs = lambda x: nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    (y, back), (want, wants) = jax.vjp(conv2d.max_pool, x), jax.vjp(theirs, x)
    np.testing.assert_array_equal(y, want)
    g = normal(2, *y.shape)
    close(back(g), wants(g))


def test_a_nan_is_not_pooled_away():
    x = jnp.zeros((1, 6, 6, 1)).at[0, 3, 3].set(jnp.nan)
    assert np.isnan(conv2d.max_pool(x)).sum() == 4  # the windows that hold it
