"""Samplers: equal to diffusers, and right where the answer is known in closed form."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.toy_diffusion import PREDICTION_TYPES, noise, toy_predictor

from dpjax.diffusion import parameterization, samplers, sampling, schedules
from dpjax.diffusion.parameterization import Estimate
from dpjax.diffusion.schedules import Path

INF = float("inf")
CLIP = {"True": 1.0, "False": INF}
SAMPLERS = {
    "ddpm": samplers.ddpm(),
    "ddim": samplers.ddim(),
    "ddim_half": samplers.ddim(0.5),
    "ddim_one": samplers.ddim(1.0),
}
COSINE = schedules.cosine(100)


def run_steps(sampler, predict, x, path, z, clip):
    """`sampling.sample` with given fresh noise z [S, B, Tp, Da]; quick to compile."""

    def body(x, inputs):
        now, to, fresh = inputs
        return sampling.step(sampler, x, predict(x, now), now, to, lambda: fresh, clip), None

    return jax.lax.scan(body, x, (path.now, path.to, z[: path.now.t.shape[0]]))[0]


@functools.partial(jax.jit, static_argnames=("sampler",))
def replay(x, path, z, *, sampler):
    """{(prediction, clip): x_0} of the toy network, with diffusers' names."""
    ends = {}
    for (name, ours), clip in itertools.product(PREDICTION_TYPES.items(), CLIP):
        ends[name, clip] = run_steps(sampler, toy_predictor(ours), x, path, z, CLIP[clip])
    return ends


def diffusers_path(golden, spacing, num_steps):
    """Diffusers' DDIM path: the levels it visits, and those K // S below as targets."""
    arrays = golden("samplers")
    every, data = COSINE.path(100).now[::-1], COSINE.path(1).to
    now = every[arrays[f"timesteps/{spacing}/{num_steps}"]]
    to_t = arrays[f"ddim_to/{spacing}/{num_steps}"]
    pick = lambda table, end: jnp.where(to_t < 0, end, table[np.maximum(to_t, 0)])
    return Path(now, jax.tree.map(pick, every, data))


def close(got, want):
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_steps", [100, 10])
def test_ddpm_equals_diffusers(golden, num_steps):
    arrays = golden("samplers")
    path = COSINE.path(num_steps, "leading")
    got = replay(arrays["x"], path, arrays["z"], sampler=SAMPLERS["ddpm"])
    for (prediction, clip), x in got.items():
        close(x, arrays[f"ddpm/{prediction}/{num_steps}/{clip}"])


@pytest.mark.parametrize(
    "spacing, num_steps", [("leading", 10), ("leading", 100), ("trailing", 10)]
)
@pytest.mark.parametrize("name, eta", [("ddim", 0.0), ("ddim_half", 0.5)])
def test_ddim_equals_diffusers(golden, spacing, num_steps, name, eta):
    arrays = golden("samplers")
    path = COSINE.path(num_steps, spacing)
    got = replay(arrays["x"], path, arrays["z"], sampler=SAMPLERS[name])
    for (prediction, clip), x in got.items():
        close(x, arrays[f"ddim/{prediction}/{spacing}/{num_steps}/{eta}/{clip}"])


def test_a_path_that_is_not_a_chain_equals_diffusers(golden):
    # 16 trailing steps of 100 levels: diffusers always steps down by 6 levels, although the
    # levels that it visits are 6.25 apart. Ours goes to the next level; a Path can hold both.
    arrays = golden("samplers")
    path = diffusers_path(golden, "trailing", 16)
    got = replay(arrays["x"], path, arrays["z"], sampler=SAMPLERS["ddim"])
    for (prediction, clip), x in got.items():
        close(x, arrays[f"ddim/{prediction}/trailing/16/0.0/{clip}"])


def test_the_public_loop_equals_diffusers(golden):
    arrays = golden("samplers")
    x = sampling.sample(
        toy_predictor("epsilon"),
        jnp.asarray(arrays["x"]),
        COSINE.path(10),
        jax.random.split(jax.random.key(0), 2),
        sampler=samplers.ddim(),
        clip=1.0,
    )
    close(x, arrays["ddim/epsilon/leading/10/0.0/True"])


def perfect(prediction_type, x0):
    """A predictor that knows the data, through a prediction of that type."""

    def predict(x, level):
        eps = (x - level.alpha * x0) / level.sigma
        y = parameterization.prediction(prediction_type, x0, eps, level)
        return parameterization.estimate(prediction_type, y, x, level)

    return predict


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("prediction_type", parameterization.PREDICTION_TYPES)
@pytest.mark.parametrize("num_steps", [2, 37, 100])
def test_perfect_denoiser_lands_on_the_data(name, prediction_type, num_steps):
    z = jnp.asarray(np.random.default_rng(0).normal(size=(num_steps, 3, 4, 2)), jnp.float32)
    x0 = jnp.tanh(z[-1])
    predict = perfect(prediction_type, x0)
    got = run_steps(SAMPLERS[name], predict, z[0], COSINE.path(num_steps), z, 1.0)
    np.testing.assert_allclose(got, x0, atol=1e-5)


def test_perfect_denoiser_lands_on_the_data_through_the_public_loop():
    x, keys = noise()
    x0 = jnp.tanh(noise(seed=9)[0])
    predict = perfect("epsilon", x0)
    got = sampling.sample(predict, x, COSINE.path(10), keys, sampler=samplers.ddpm(), clip=1.0)
    np.testing.assert_allclose(got, x0, atol=1e-5)


@pytest.mark.parametrize("num_steps", [2, 10, 37])
def test_ddim_returns_the_linear_policy_exactly(num_steps):
    # Chi et al. 2023, section 4.5: for demonstrations a = -K s the optimal denoiser is
    # ε = (x + α K s) / σ, and DDIM converges to a = -K s.
    gain = noise(seed=1)[0][0]  # [4, 2]
    state = noise(seed=2)[0]  # [3, 4, 2]
    action = -jnp.einsum("td,btd->bt", gain, state)[..., None]
    x, keys = noise(shape=(4, 1))
    optimal = lambda x, level: (x - level.alpha * action) / level.sigma
    predict = lambda x, level: parameterization.estimate("epsilon", optimal(x, level), x, level)
    got = sampling.sample(predict, x, COSINE.path(num_steps), keys, sampler=samplers.ddim())
    np.testing.assert_allclose(got, action, rtol=1e-5, atol=1e-5)


def gaussian_std(sampler, num_steps, std=0.5, levels=100):
    """Std of the samples for data from N(0, std²) and the exact denoiser, in closed form.

    The denoiser is linear, so every step is x -> c x + γ z. Two calls give c and γ for all
    steps at once.
    """
    now, to = schedules.cosine(levels).path(num_steps)
    x0 = now.alpha * std**2 / (now.alpha**2 * std**2 + now.sigma**2)  # E[x_0 | x = 1]
    estimate = Estimate(x0, (1 - now.alpha * x0) / now.sigma)
    at = lambda z: np.asarray(sampling.step(sampler, 1.0, estimate, now, to, lambda: z, INF))
    variance = 1.0
    for c, gamma in zip(at(0.0), at(1.0) - at(0.0)):
        variance = c**2 * variance + gamma**2
    return variance**0.5


@pytest.mark.parametrize(
    "name, num_steps, want", [("ddpm", 10, 0.387), ("ddim", 10, 0.437), ("ddpm", 100, 0.483)]
)
def test_few_steps_shrink_gaussian_data_by_a_known_factor(name, num_steps, want):
    # `want` was measured on samples, by an independent implementation.
    assert gaussian_std(SAMPLERS[name], num_steps) == pytest.approx(want, abs=2e-3)


@pytest.mark.parametrize("name", ["ddpm", "ddim"])
def test_the_error_falls_with_the_first_power_of_the_steps(name):
    steps = [50, 100, 200, 500]
    errors = [0.5 - gaussian_std(SAMPLERS[name], n, levels=1000) for n in steps]
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert -1.1 < slope < -0.9


@jax.jit
def run(keys, x):
    return sampling.sample(
        toy_predictor("epsilon"), x, COSINE.path(10), keys, sampler=samplers.ddpm(), clip=1.0
    )


def test_an_examples_noise_depends_on_its_own_key_only():
    x, keys = noise()
    other = jax.random.split(jax.random.key(7), 3).at[1].set(keys[1])
    first = run(keys, x)
    second = run(other, x)
    np.testing.assert_array_equal(first[1], second[1])
    assert (abs(first - second).max((1, 2)) > 1e-3).tolist() == [True, False, True]
    np.testing.assert_allclose(run(keys[1:2], x[1:2])[0], first[1], atol=1e-6)


def test_fresh_noise_differs_from_step_to_step():
    # x̂_0 = x and ε̂ = 0 keep x as it is, and γ = σ_s adds the z of one step.
    keep = samplers.Sampler(lambda now, to: to.sigma, rederive_eps=False)
    predict = lambda x, level: Estimate(x, jnp.zeros_like(x))
    x, keys = noise(shape=(50, 4))
    one = jax.tree.map(jnp.ones_like, COSINE.path(3).now)

    @jax.jit
    def at(sigma):
        path = Path(one, one.replace(sigma=sigma))
        return sampling.sample(predict, 0 * x, path, keys, sampler=keep)

    drawn = np.stack([at(sigma).ravel() for sigma in jnp.eye(3)])
    np.testing.assert_allclose(np.corrcoef(drawn), np.eye(3), atol=0.16)  # 4 standard errors
    np.testing.assert_allclose(drawn.std(1), 1, atol=0.12)


def test_unrolling_the_loop_changes_nothing():
    x, keys = noise()
    sample = functools.partial(sampling.sample, toy_predictor("v"), x, COSINE.path(5), keys)
    want = sample(sampler=samplers.ddim())
    for unroll in (2, 99):
        np.testing.assert_allclose(sample(sampler=samplers.ddim(), unroll=unroll), want, atol=1e-5)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_sampler_of_first_order_is_a_bare_scan_of_its_step(name):
    # The same operations, not only numbers close to each other: the same bits on every machine.
    x, keys = noise()
    path = COSINE.path(10)
    sampler = SAMPLERS[name]
    predict = toy_predictor("epsilon")

    def body(x, inputs):
        i, now, to = inputs
        step_keys = lambda: jax.vmap(jax.random.fold_in, (0, None))(keys, i)
        draw = lambda: sampling.draw_noise(step_keys(), x.shape[1:])
        return sampling.step(sampler, x, predict(x, now), now, to, draw, 1.0), None

    bare = lambda x: jax.lax.scan(body, x, (jnp.arange(10), path.now, path.to))[0]
    loop = lambda x: sampling.sample(predict, x, path, keys, sampler=sampler, clip=1.0)
    assert str(jax.make_jaxpr(loop)(x)) == str(jax.make_jaxpr(bare)(x))


def test_each_step_gets_its_own_slice_of_what_was_prepared():
    x, keys = noise()
    path = COSINE.path(10)
    predict = toy_predictor("epsilon")
    by_slice = lambda x, level, t: predict(x, level.replace(t=t))
    got = sampling.sample(
        by_slice, x, path, keys, sampler=samplers.ddim(), clip=1.0, prepared=path.now.t
    )
    want = sampling.sample(predict, x, path, keys, sampler=samplers.ddim(), clip=1.0)
    np.testing.assert_array_equal(got, want)
