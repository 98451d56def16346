"""The sampling loop holds the products that x needs, and no others."""

import jax
from jax.extend.core import jaxprs_in_params
import jax.numpy as jnp
import pytest
from support.jaxprs import equations

from dpjax.core.normalizer import Normalizer
from dpjax.core.types import ACTION, Batch
from dpjax.diffusion import samplers, schedules
from dpjax.nets.dit import DiT
from dpjax.nets.encoders import Concat
from dpjax.nets.transformer import Transformer
from dpjax.nets.unet1d import UNet1D
from dpjax.ops import transposed
from dpjax.policies import base
from dpjax.policies import diffusion as policies

HORIZON, OBSERVED, STEPS, BATCH = 4, 2, 5, 3
PRODUCTS = ("dot_general", "conv_general_dilated")
LAYERS = 2

# (network, products of x in one evaluation). The U-Net of two levels: eight blocks of two
# convolutions, a shortcut in three where the channels change, one down, one up, the last
# block and the last convolution. A layer of the decoder: query-key-value, scores, mix, out; the
# query for the memory, scores, mix, out; up, down. One of DiT: the same without the memory.
NETS = {
    "unet": (UNet1D(2, (8, 16), kernel_size=3, groups=4, time_features=8), 23),
    "transformer": (Transformer(2, HORIZON, OBSERVED, LAYERS, heads=2, width=8), 10 * LAYERS + 2),
    "dit": (DiT(2, HORIZON, LAYERS, heads=2, width=8), 6 * LAYERS + 2),
}


def policy_of(net):
    size = {"state": 3, ACTION: 2}
    units = Normalizer(*({k: fill(n) for k, n in size.items()} for fill in (jnp.zeros, jnp.ones)))
    return policies.diffusion_policy(
        base.encoder_of(Concat(("state",))),
        base.denoiser_of(net),
        schedules.cosine(20),
        units,
        horizon=HORIZON,
        sampler=samplers.ddpm(),
        num_steps=STEPS,
    )


def products(jaxpr) -> int:
    """Matrix products and convolutions; of several branches only those of the most expensive."""
    count = 0
    for equation in jaxpr.eqns:
        counts = [products(part) for part in jaxprs_in_params(equation.params)]
        branches = equation.primitive.name in ("cond", "platform_index")
        count += max(counts, default=0) if branches else sum(counts)
        count += equation.primitive.name in PRODUCTS
    return count


def loops(jaxpr):
    """The bodies of the scans of S steps, wherever they are."""
    for equation in equations(jaxpr):
        if equation.primitive.name == "scan" and equation.params["length"] == STEPS:
            yield equation.params["jaxpr"].jaxpr


@pytest.mark.parametrize("is_transposed", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_only_products_of_x_are_in_the_loop(name, is_transposed):
    net, want = NETS[name]
    policy = policy_of(net)
    obs = {"state": jnp.ones((BATCH, OBSERVED, 3))}
    batch = Batch(obs, jnp.ones((BATCH, HORIZON, 2)), jnp.ones((BATCH, HORIZON)), jnp.arange(BATCH))
    params = jax.eval_shape(policy.init, jax.random.key(0), batch)
    if is_transposed:  # on CPUs large kernels are; here all of them
        transpose = lambda weights: transposed.transpose(weights, min_size=0)
        params["denoiser"] = jax.eval_shape(transpose, params["denoiser"])
    program = jax.make_jaxpr(policy.sample)(params, jax.random.key(0), obs).jaxpr
    (body,) = loops(program)
    assert products(body) == want
    assert products(program) > want  # the others are before the loop
