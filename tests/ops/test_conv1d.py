"""Convolutions along time: every form of one is the same function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.numerics import assert_same_function, normal

from dpjax.ops import conv1d

# (batch, steps, kernel size, stride, padding): the geometries of the U-Net
SAME = [(2, 16, 5, 1, 2), (3, 4, 5, 1, 2), (3, 2, 5, 1, 2)]
GEOMETRIES = [*SAME, (2, 8, 3, 2, 1), (2, 7, 3, 2, 1)]


@pytest.mark.parametrize("form", [conv1d.conv_cpu, conv1d.conv_taps, conv1d.conv_neighbours])
@pytest.mark.parametrize("batch, steps, size, stride, padding", GEOMETRIES)
def test_matrix_products_equal_xlas_convolution(form, batch, steps, size, stride, padding):
    x = normal(0, batch, steps, 3)
    kernel = normal(1, size, 3, 4)
    assert_same_function(
        lambda x, kernel: form(x, kernel, stride, padding),
        lambda x, kernel: conv1d.conv_xla(x, kernel, stride, padding),
        x,
        kernel,
    )


@pytest.mark.parametrize("batch, channels", [(conv1d.LARGE_BATCH, 512), (2, 512), (2, 8)])
def test_every_size_equals_xlas_convolution(batch, channels):
    x = normal(0, batch, 4, channels)
    kernel = normal(1, 5, channels, 512) / channels
    assert_same_function(
        lambda x, kernel: conv1d.conv(x, kernel, padding=2),
        lambda x, kernel: conv1d.conv_xla(x, kernel, 1, 2),
        x,
        kernel,
    )


@pytest.mark.parametrize("platform, products", [("cpu", 8), ("cuda", 1), ("tpu", 0)])
def test_every_platform_has_its_form(platform, products):
    """Eight products in tiles, one of neighbours side by side, none in XLA's convolution."""
    x = jnp.ones((64, 16, 256))
    kernel = jnp.ones((5, 256, 256))
    f = jax.jit(lambda x, kernel: conv1d.conv(x, kernel, padding=2))
    text = f.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.dot_general") == products
    assert text.count("stablehlo.convolution") == (platform == "tpu")


def test_a_kernel_of_one_is_a_matrix_product():
    x = normal(0, 2, 6, 3)
    kernel = normal(1, 1, 3, 4)
    np.testing.assert_allclose(
        conv1d.conv(x, kernel), conv1d.conv_xla(x, kernel, 1, 0), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("steps", [1, 2, 8])
def test_both_forms_of_upsample_are_the_same(steps):
    x = normal(0, 2, steps, 3)
    kernel = normal(1, 4, 3, 5)
    assert conv1d.upsample(x, kernel).shape == (2, 2 * steps, 5)
    assert_same_function(conv1d.upsample_matmul, conv1d.upsample_xla, x, kernel)


@pytest.mark.parametrize(
    "f",
    [
        lambda x, kernel: conv1d.conv(x, kernel, padding=2),
        lambda x, kernel: conv1d.upsample(x, kernel[:4]),
    ],
)
def test_forward_mode_agrees_with_finite_differences(f):
    x, kernel, v = normal(0, 2, 8, 3), normal(1, 5, 3, 3), normal(2, 2, 8, 3)
    y, tangent = jax.jvp(lambda x: f(x, kernel), (x,), (v,))
    np.testing.assert_allclose(tangent, f(x + v, kernel) - y, atol=1e-4)  # f is linear in x
