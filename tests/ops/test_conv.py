"""Convolutions and small functions: every way of writing one is the same function."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.jaxprs import equations

from dpjax.nets import layers
from dpjax.ops import conv1d, winograd

# (batch, steps, kernel size, stride, padding): the geometries of the U-Net
SAME = [(2, 16, 5, 1, 2), (3, 4, 5, 1, 2), (3, 2, 5, 1, 2)]
GEOMETRIES = [*SAME, (2, 8, 3, 2, 1), (2, 7, 3, 2, 1)]


def normal(seed, *shape):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def with_gradients(f, x, kernel):
    """f's value, and the gradients of a loss of it in both arguments."""

    def loss(x, kernel):
        y = f(x, kernel)
        return jnp.sum(jnp.sin(y)), y

    grads, y = jax.jit(jax.grad(loss, argnums=(0, 1), has_aux=True))(x, kernel)
    return y, *grads


def agree(f, g, x, kernel, atol=1e-5):
    for got, want in zip(with_gradients(f, x, kernel), with_gradients(g, x, kernel)):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("way", [conv1d.conv_matmul, conv1d.conv_taps, conv1d.conv_beside])
@pytest.mark.parametrize("batch, steps, size, stride, padding", GEOMETRIES)
def test_matrix_products_equal_xlas_convolution(way, batch, steps, size, stride, padding):
    x, kernel = normal(0, batch, steps, 3), normal(1, size, 3, 4)
    agree(
        lambda x, kernel: way(x, kernel, stride, padding),
        lambda x, kernel: conv1d.conv_xla(x, kernel, stride, padding),
        x,
        kernel,
    )


@pytest.mark.parametrize("batch, channels", [(conv1d.LARGE_BATCH, 512), (2, 512), (2, 8)])
def test_every_size_equals_xlas_convolution(batch, channels):
    x, kernel = normal(0, batch, 4, channels), normal(1, 5, channels, 512) / channels
    agree(
        lambda x, kernel: conv1d.conv(x, kernel, padding=2),
        lambda x, kernel: conv1d.conv_xla(x, kernel, 1, 2),
        x,
        kernel,
    )


@pytest.mark.parametrize("batch", [3, winograd.ALONE])
@pytest.mark.parametrize("steps, size", [(4, 3), (4, 5), (4, 7), (8, 3), (8, 5), (12, 5), (16, 5)])
def test_fewer_products_equal_xlas_convolution(batch, steps, size):
    x, kernel = normal(0, batch, steps, 6), normal(1, size, 6, 4)
    agree(
        winograd.conv_tiles,
        lambda x, kernel: conv1d.conv_xla(x, kernel, 1, size // 2),
        x,
        kernel,
        atol=2e-4,  # of gradients up to 50: values at points are rounded too
    )


@pytest.mark.parametrize("steps, size", [(4, 5), (8, 3)])
def test_tangents_of_tiles_are_xlas(steps, size):
    """Forwards in either argument or in both, as MeanFlow goes, and backwards through that."""
    x, kernel = normal(0, 2, steps, 6), normal(1, size, 6, 4)
    exact = lambda x, kernel: conv1d.conv_xla(x, kernel, 1, size // 2)
    along = lambda f: jax.jvp(lambda x: jnp.sin(f(x, kernel)), (x,), (x,))[1]
    within = lambda f: jax.jvp(lambda kernel: f(x, kernel), (kernel,), (kernel,))[1]
    both = lambda f: jax.jvp(f, (x, kernel), (x, kernel))[1]

    def backwards(f):
        speed = lambda kernel: jax.jvp(lambda x: jnp.sin(f(x, kernel)), (x,), (x,))[1]
        return jax.grad(lambda kernel: jnp.sum(speed(kernel)))(kernel)

    for way in (along, within, both, backwards):
        np.testing.assert_allclose(way(winograd.conv_tiles), way(exact), rtol=1e-4, atol=1e-4)


def test_a_tangent_of_steps_alone_makes_no_product_with_zeros():
    x, kernel = jnp.ones((2, 8, 6)), jnp.ones((5, 6, 4))
    moved = lambda x: jax.jvp(lambda x: winograd.conv_tiles(x, kernel), (x,), (x,))
    assert len([made for made in left_operands(moved, x) if made]) == 2 * 8


def test_gradients_of_steps_come_before_those_of_kernels():
    """8 forwards, 8 backwards, and after a barrier that keeps what those read 8 more."""
    x, kernel = jnp.ones((2, 8, 6)), jnp.ones((5, 6, 4))
    loss = lambda x, kernel: jnp.sum(winograd.conv_tiles(x, kernel) ** 2)
    made = left_operands(jax.grad(loss, argnums=(0, 1)), x, kernel)
    assert made == [*[(4, 6)] * 8, None, *[(4, 4)] * 8, None, *[(4, 4)] * 8]


@pytest.mark.parametrize("platform, products", [("cpu", 8), ("cuda", 1), ("tpu", 0)])
def test_every_platform_has_its_way(platform, products):
    """Products of a convolution in tiles, of neighbours side by side, and none in XLA's own."""
    x, kernel = jnp.ones((64, 16, 256)), jnp.ones((5, 256, 256))
    f = jax.jit(lambda x, kernel: conv1d.conv(x, kernel, padding=2))
    text = f.trace(x, kernel).lower(lowering_platforms=(platform,)).as_text()
    assert text.count("stablehlo.dot_general") == products
    assert text.count("stablehlo.convolution") == (platform == "tpu")


@pytest.mark.parametrize("n", range(3, 9))
def test_values_at_points_are_interpolated(n):
    """The inverse of the Vandermonde matrix, transposed, in the numbers of float32."""
    inverse = winograd.interpolation(n)
    np.testing.assert_allclose(winograd.at_points(n, n) @ inverse.T, np.eye(n), atol=1e-14)


@pytest.mark.parametrize("steps, size, times", [(4, 3, 4), (4, 5, 6), (16, 3, 4), (16, 5, 6)])
def test_fewer_products_round_a_few_times_as_much(steps, size, times):
    x, kernel = normal(0, 64, steps, 256), normal(1, size, 256, 16)
    exact = conv_in_float64(x, kernel)
    error = lambda y: np.sqrt(np.mean(np.square(np.asarray(y, np.float64) - exact)))
    with jax.default_device(jax.devices("cpu")[0]):  # others sum in another order, and never tile
        plain = error(conv1d.conv_taps(x, kernel, 1, size // 2))
        assert error(winograd.conv_tiles(x, kernel)) < times * plain


def conv_in_float64(x, kernel):
    """A convolution that keeps the number of steps, by numpy."""
    size, reach = len(kernel), len(kernel) // 2
    x, kernel = np.asarray(x, np.float64), np.asarray(kernel, np.float64)
    padded = np.pad(x, ((0, 0), (reach, reach), (0, 0)))
    return sum(padded[:, tap : tap + x.shape[1]] @ kernel[tap] for tap in range(size))


def multiplications(batch, steps=4, size=5, channels=64, stride=1, padding=2, dtype=jnp.float32):
    """How many taps every row of the batch is multiplied by, in `conv` on a CPU."""
    x, kernel = jnp.ones((batch, steps, channels), dtype), jnp.ones((size, channels, 64), dtype)
    f = lambda x, kernel: conv1d.conv_matmul(x, kernel, stride, padding)
    return sum(rows * columns for rows, columns in left_operands(f, x, kernel)) / (batch * channels)


def left_operands(f, *args):
    """Shapes of what is left in f's products, in order, and of optimization barriers None."""
    eqns = equations(jax.make_jaxpr(f)(*args).jaxpr)
    made = [e for e in eqns if e.primitive.name in ("dot_general", "optimization_barrier")]
    products = [e.primitive.name == "dot_general" for e in made]
    return [e.invars[0].aval.shape if p else None for e, p in zip(made, products)]


def test_fewer_products_where_they_pay():
    assert multiplications(winograd.ALONE) == 7 * (winograd.ALONE + 1) / winograd.ALONE
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


def test_a_kernel_of_one_is_a_matrix_product():
    x, kernel = normal(0, 2, 6, 3), normal(1, 1, 3, 4)
    np.testing.assert_allclose(
        conv1d.conv(x, kernel), conv1d.conv_xla(x, kernel, 1, 0), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("steps", [1, 2, 8])
def test_upsample_both_ways(steps):
    x, kernel = normal(0, 2, steps, 3), normal(1, 4, 3, 5)
    assert conv1d.upsample(x, kernel).shape == (2, 2 * steps, 5)
    agree(conv1d.upsample_matmul, conv1d.upsample_xla, x, kernel)


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


def flaxs_group_norm(x, scale, bias):
    flax = nn.GroupNorm(4, epsilon=1e-5, use_fast_variance=False)
    return flax.apply({"params": {"scale": scale, "bias": bias}}, x)


def of_loss(f):
    return jax.value_and_grad(lambda *args: jnp.sum(jnp.sin(f(*args))), (0, 1, 2))


@pytest.mark.parametrize("shape", [(2, 6, 8), (3, 1, 8), (2, 5, 4, 8)])
def test_group_norm_is_flaxs_and_so_are_its_derivatives(shape):
    args = 3 + 2 * normal(0, *shape), normal(1, 8), normal(2, 8)
    ours = lambda x, scale, bias: layers.group_norm(x, scale, bias, 4)
    np.testing.assert_allclose(ours(*args), flaxs_group_norm(*args), rtol=1e-5, atol=1e-5)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5)
    jax.tree.map(close, of_loss(ours)(*args), of_loss(flaxs_group_norm)(*args))

    tangents = normal(3, *shape), normal(4, 8), normal(5, 8)
    along = lambda f: lambda *args: jax.jvp(f, args, tangents)[1]  # MeanFlow's loss has one
    ours, theirs = along(ours), along(flaxs_group_norm)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    close(ours(*args), theirs(*args))
    jax.tree.map(close, of_loss(ours)(*args), of_loss(theirs)(*args))


def test_a_group_norm_of_few_bits_computes_with_many():
    x, scale, bias = 30 + normal(0, 2, 6, 8), normal(1, 8), normal(2, 8)
    few = x.astype(jnp.bfloat16)
    got = layers.group_norm(few, scale, bias, 4)
    assert got.dtype == jnp.bfloat16
    want = layers.group_norm(few.astype(jnp.float32), scale, bias, 4)
    np.testing.assert_array_equal(got, want.astype(jnp.bfloat16))


def test_mish_is_jaxs_at_every_size_and_its_gradient():
    x = jnp.asarray([-1e4, -100, -88, -30, -5, -1, -1e-3, 0, 1e-3, 1, 5, 19.9, 20.1, 88, 1e4])
    np.testing.assert_allclose(layers.mish(x), jax.nn.mish(x), rtol=1e-5, atol=1e-30)
    slope, want = jax.vmap(jax.grad(layers.mish))(x), jax.vmap(jax.grad(jax.nn.mish))(x)
    np.testing.assert_allclose(slope, want, rtol=1e-5, atol=1e-6)
    assert np.isfinite(layers.mish(x.astype(jnp.bfloat16))).all()


def test_sinusoidal_runs_from_a_full_turn_to_a_ten_thousandth():
    t = np.array([0, 1, 99])
    got = layers.sinusoidal(jnp.asarray(t), 8)
    frequency = np.array([1, 10 ** (-4 / 3), 10 ** (-8 / 3), 1e-4])
    want = np.concatenate([np.sin(t[:, None] * frequency), np.cos(t[:, None] * frequency)], -1)
    np.testing.assert_allclose(got, want, atol=1e-5)
