"""Convolutions with fewer products: the same function, where they pay, and how they round."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.jaxprs import equations
from support.numerics import assert_same_function, normal

from dpjax.ops import conv1d, winograd


@pytest.mark.parametrize("batch", [3, winograd.SINGLE_THREAD_ROWS])
@pytest.mark.parametrize("steps, size", [(4, 3), (4, 5), (4, 7), (8, 3), (8, 5), (12, 5), (16, 5)])
def test_fewer_products_equal_xlas_convolution(batch, steps, size):
    x = normal(0, batch, steps, 6)
    kernel = normal(1, size, 6, 4)
    assert_same_function(
        winograd.conv_tiles,
        lambda x, kernel: conv1d.conv_xla(x, kernel, 1, size // 2),
        x,
        kernel,
        atol=2e-4,  # of gradients up to 50: values at points are rounded too
    )


@pytest.mark.parametrize("steps, size", [(4, 5), (8, 3)])
def test_tangents_of_tiles_are_xlas(steps, size):
    """Forward mode in either argument or in both, as in MeanFlow, and the gradient of that."""
    x = normal(0, 2, steps, 6)
    kernel = normal(1, size, 6, 4)
    exact = lambda x, kernel: conv1d.conv_xla(x, kernel, 1, size // 2)
    along = lambda f: jax.jvp(lambda x: jnp.sin(f(x, kernel)), (x,), (x,))[1]
    within = lambda f: jax.jvp(lambda kernel: f(x, kernel), (kernel,), (kernel,))[1]
    both = lambda f: jax.jvp(f, (x, kernel), (x, kernel))[1]

    def backwards(f):
        speed = lambda kernel: jax.jvp(lambda x: jnp.sin(f(x, kernel)), (x,), (x,))[1]
        return jax.grad(lambda kernel: jnp.sum(speed(kernel)))(kernel)

    for derivative in (along, within, both, backwards):
        got, want = derivative(winograd.conv_tiles), derivative(exact)
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_a_tangent_of_steps_alone_makes_no_product_with_zeros():
    x = jnp.ones((2, 8, 6))
    kernel = jnp.ones((5, 6, 4))
    moved = lambda x: jax.jvp(lambda x: winograd.conv_tiles(x, kernel), (x,), (x,))
    assert len([shape for shape in left_operands(moved, x) if shape]) == 2 * 8


def test_gradients_of_steps_come_before_those_of_kernels():
    """8 products forward, 8 for the steps, and after a barrier 8 for the kernels."""
    x = jnp.ones((2, 8, 6))
    kernel = jnp.ones((5, 6, 4))
    loss = lambda x, kernel: jnp.sum(winograd.conv_tiles(x, kernel) ** 2)
    shapes = left_operands(jax.grad(loss, argnums=(0, 1)), x, kernel)
    assert shapes == [*[(4, 6)] * 8, None, *[(4, 4)] * 8, None, *[(4, 4)] * 8]


@pytest.mark.parametrize("n", range(3, 9))
def test_values_at_points_are_interpolated(n):
    """The inverse of the Vandermonde matrix, transposed, in the numbers of float32."""
    inverse = winograd.interpolation(n)
    np.testing.assert_allclose(winograd.evaluation(n, n) @ inverse.T, np.eye(n), atol=1e-14)


@pytest.mark.parametrize("steps, size, times", [(4, 3, 4), (4, 5, 6), (16, 3, 4), (16, 5, 6)])
def test_fewer_products_round_a_few_times_as_much(steps, size, times):
    x = normal(0, 64, steps, 256)
    kernel = normal(1, size, 256, 16)
    exact = conv_in_float64(x, kernel)
    error = lambda y: np.sqrt(np.mean(np.square(np.asarray(y, np.float64) - exact)))
    with jax.default_device(jax.devices("cpu")[0]):  # other platforms add up in another order
        plain = error(conv1d.conv_taps(x, kernel, 1, size // 2))
        assert error(winograd.conv_tiles(x, kernel)) < times * plain


def conv_in_float64(x, kernel):
    """A convolution that keeps the number of steps, by numpy."""
    size = len(kernel)
    reach = size // 2
    x = np.asarray(x, np.float64)
    kernel = np.asarray(kernel, np.float64)
    padded = np.pad(x, ((0, 0), (reach, reach), (0, 0)))
    return sum(padded[:, tap : tap + x.shape[1]] @ kernel[tap] for tap in range(size))


def multiplications(batch, steps=4, size=5, channels=64, stride=1, padding=2, dtype=jnp.float32):
    """Products per example in `conv` on a CPU, each of one step and the kernel of one tap."""
    x = jnp.ones((batch, steps, channels), dtype)
    kernel = jnp.ones((size, channels, 64), dtype)
    f = lambda x, kernel: conv1d.conv_cpu(x, kernel, stride, padding)
    return sum(rows * columns for rows, columns in left_operands(f, x, kernel)) / (batch * channels)


def left_operands(f, *args):
    """Shapes of the left operands of f's products, in order; None for optimization barriers."""
    shapes = []
    for equation in equations(jax.make_jaxpr(f)(*args).jaxpr):
        if equation.primitive.name == "dot_general":
            shapes.append(equation.invars[0].aval.shape)
        elif equation.primitive.name == "optimization_barrier":
            shapes.append(None)
    return shapes


def test_fewer_products_where_they_pay():
    rows = winograd.SINGLE_THREAD_ROWS
    assert multiplications(rows) == 7 * (rows + 1) / rows
    assert multiplications(128) == 7
    assert multiplications(128, size=3, padding=1) == 6
    assert multiplications(32, steps=8) == 2 * 8 * 33 / 32  # 64 rows of tiles
    assert multiplications(16, steps=8) == 2 * 8
    assert multiplications(32, steps=16) == 4 * 8
    assert multiplications(32, steps=16, size=3, padding=1) == 4 * 6
    assert multiplications(8, steps=16) == 4 * 8


def test_all_products_where_fewer_do_not_pay():
    assert multiplications(128, channels=32) == 20
    assert multiplications(128, dtype=jnp.bfloat16) == 20
    assert multiplications(31) == 20
    assert multiplications(15, steps=8) == 40
    assert multiplications(128, steps=6) == 30
    assert multiplications(128, steps=2) == 10
    assert multiplications(128, steps=7, stride=2) == 20
    assert multiplications(128, size=7, padding=3) == 28
