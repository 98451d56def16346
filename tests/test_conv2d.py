"""The CPU's gradients of 2-D convolutions equal XLA's own."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpjax.nets import conv2d


@pytest.mark.parametrize("channels", [4, 8])
@pytest.mark.parametrize("height, width, size, stride", [
    (12, 9, 3, 1), (12, 9, 3, 2), (11, 8, 3, 2), (14, 13, 7, 2), (6, 5, 1, 2), (1, 2, 3, 1),
])  # fmt: skip
def test_conv_and_its_gradients_are_xlas(height, width, size, stride, channels):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(6, height, width, channels)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(size, size, channels, 5)), jnp.float32)

    def of(conv):
        value = lambda x, kernel: jnp.sum(jnp.sin(conv(x, kernel, stride, size // 2)))
        return jax.jit(jax.value_and_grad(value, argnums=(0, 1)))(x, kernel)

    ours = lambda x, kernel, stride, padding: conv2d.conv(x, kernel, stride=stride, padding=padding)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        of(ours),
        of(conv2d.forward),
    )


@pytest.mark.parametrize("height, width", [(8, 7), (5, 6)])
def test_max_pool_is_flaxs(height, width):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, height, width, 3)), jnp.float32)
    want = lambda x: nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1)))
    np.testing.assert_array_equal(conv2d.max_pool(x), want(x))
    slope = lambda pool: jax.grad(lambda x: jnp.sum(jnp.sin(pool(x))))(x)
    np.testing.assert_allclose(slope(conv2d.max_pool), slope(want), atol=1e-6)
