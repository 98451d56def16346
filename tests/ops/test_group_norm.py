"""Group normalization: both forms are flax's, in value and in derivatives."""

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.numerics import normal

from dpjax.ops.group_norm import group_norm


def flax_group_norm(x, scale, bias):
    layer = nn.GroupNorm(4, epsilon=1e-5, use_fast_variance=False)
    return layer.apply({"params": {"scale": scale, "bias": bias}}, x)


def of_loss(f):
    return jax.value_and_grad(lambda *args: jnp.sum(jnp.sin(f(*args))), (0, 1, 2))


@pytest.mark.parametrize("kernels", ["auto", "xla"])
@pytest.mark.parametrize("shape", [(2, 6, 8), (3, 1, 8), (2, 5, 4, 8)])
def test_group_norm_is_flaxs_and_so_are_its_derivatives(shape, kernels):
    args = 3 + 2 * normal(0, *shape), normal(1, 8), normal(2, 8)
    ours = lambda x, scale, bias: group_norm(x, scale, bias, 4, kernels=kernels)
    np.testing.assert_allclose(ours(*args), flax_group_norm(*args), rtol=1e-5, atol=1e-5)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-5)
    jax.tree.map(close, of_loss(ours)(*args), of_loss(flax_group_norm)(*args))

    # Forward mode, as in MeanFlow's loss, and the gradient of that.
    tangents = normal(3, *shape), normal(4, 8), normal(5, 8)
    along = lambda f: lambda *args: jax.jvp(f, args, tangents)[1]
    got, want = along(ours), along(flax_group_norm)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    close(got(*args), want(*args))
    jax.tree.map(close, of_loss(got)(*args), of_loss(want)(*args))


@pytest.mark.parametrize("kernels", ["auto", "xla"])
def test_a_group_norm_of_few_bits_computes_with_many(kernels):
    x = 30 + normal(0, 2, 6, 8)
    scale = normal(1, 8)
    bias = normal(2, 8)
    few = x.astype(jnp.bfloat16)
    got = group_norm(few, scale, bias, 4, kernels=kernels)
    assert got.dtype == jnp.bfloat16
    want = group_norm(few.astype(jnp.float32), scale, bias, 4, kernels=kernels)
    np.testing.assert_array_equal(got, want.astype(jnp.bfloat16))
