"""diffusers 0.11: its samplers, against a transcription of its documents and history."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpjax.core.errors import UserError
from dpjax.diffusion import diffusers_0_11, parameterization, samplers, sampling, schedules

COSINE = schedules.cosine(100)
BETAS = np.minimum(
    1 - (lambda f: f[1:] / f[:-1])(np.cos((np.arange(101) / 100 + 0.008) / 1.008 * np.pi / 2) ** 2),
    0.999,
)
ALPHA_BAR = np.cumprod(1 - BETAS)


def network(x, t):
    like = jnp if isinstance(x, jax.Array) else np
    return 0.5 * like.tanh(x) + t / 10_000


def ours(name, predict, num_steps, x, z, clip=1.0):
    """Our samples with given fresh noise z [evaluations, …], and the levels of the path."""
    current = {"ddpm": samplers.ddpm(), "ddim": samplers.ddim()}[name]
    schedule, sampler = diffusers_0_11.as_in("0.11", COSINE, 100, name, current, predict)
    path = schedule.path(num_steps, "leading")

    def body(x, inputs):
        now, to, fresh = inputs
        estimate = parameterization.estimate(predict, network(x, now.t), x, now)
        return sampling.step(sampler, x, estimate, now, to, lambda: fresh, clip), None

    z = jnp.asarray(z[: len(path.now.t)], jnp.float32)
    x, _ = jax.lax.scan(body, jnp.asarray(x, jnp.float32), (path.now, path.to, z))
    return np.asarray(x), np.asarray(path.now.t)


def old_ddpm(predict, num_steps, x, z):
    """The posterior of t -> t - 1 at every visited t (Ho et al. 2020, eq. 7)."""
    x = np.float64(x)
    visited = np.arange(0, 100, 100 // num_steps)[::-1]
    for i, t in enumerate(visited):
        bar, before = ALPHA_BAR[t], ALPHA_BAR[t - 1] if t else 1.0
        y = network(x, t)
        x0 = y if predict == "sample" else (x - np.sqrt(1 - bar) * y) / np.sqrt(bar)
        x0 = np.clip(x0, -1, 1)
        mean = np.sqrt(before) * BETAS[t] / (1 - bar) * x0
        mean += np.sqrt(1 - BETAS[t]) * (1 - before) / (1 - bar) * x
        std = np.sqrt((1 - before) / (1 - bar) * BETAS[t])
        x = mean + (std * z[i] if t else 0)
    return x, visited


def old_ddim(num_steps, x):
    """η 0 with predictions of x_0: the direction is the network's output, unclipped."""
    x = np.float64(x)
    stride = 100 // num_steps
    for t in np.arange(num_steps)[::-1] * stride:
        before = ALPHA_BAR[t - stride] if t >= stride else 1.0
        y = network(x, t)
        x = np.sqrt(before) * np.clip(y, -1, 1) + np.sqrt(1 - before) * y
    return x


@pytest.fixture(scope="module")
def noise():
    rng = np.random.default_rng(0)
    return rng.normal(size=(2, 4, 2)), rng.normal(size=(101, 2, 4, 2))


@pytest.mark.parametrize("predict", ["epsilon", "sample"])
@pytest.mark.parametrize("num_steps, evaluations", [(10, 10), (16, 17), (40, 50)])
def test_ddpm_steps_to_the_level_below_whatever_the_stride(predict, num_steps, evaluations, noise):
    x, z = noise
    got, visited = ours("ddpm", predict, num_steps, x, z)
    want, expected = old_ddpm(predict, num_steps, x, z)
    np.testing.assert_array_equal(visited, expected)
    assert len(visited) == evaluations
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("num_steps", [10, 16])
def test_ddim_uses_the_predicted_data_as_the_noise(num_steps, noise):
    x = 3 * noise[0]  # beyond the clip, so that clipped and unclipped outputs differ
    got, _ = ours("ddim", "sample", num_steps, x, noise[1])
    np.testing.assert_allclose(got, old_ddim(num_steps, x), rtol=1e-5, atol=1e-5)


def test_where_old_and_new_agree_nothing_changes():
    for name, predict, steps in (("ddpm", "epsilon", 100), ("ddim", "epsilon", 10)):
        current = {"ddpm": samplers.ddpm(), "ddim": samplers.ddim()}[name]
        old, sampler = diffusers_0_11.as_in("0.11", COSINE, 100, name, current, predict)
        jax.tree.map(
            np.testing.assert_array_equal, old.path(steps, "leading"), COSINE.path(steps, "leading")
        )
        assert sampler == current
    dpm = samplers.ddpm()
    assert diffusers_0_11.as_in("0.11", COSINE, 100, "dpm_solver", dpm, "epsilon") == (COSINE, dpm)
    assert diffusers_0_11.as_in("current", COSINE, 100, "ddpm", dpm, "epsilon") == (COSINE, dpm)


def test_a_path_that_would_start_far_from_noise_is_refused():
    schedule, _ = diffusers_0_11.as_in("0.11", COSINE, 100, "ddpm", samplers.ddpm(), "epsilon")
    with pytest.raises(UserError, match="diffusers='0.11' with num_steps=2 starts at level 50"):
        schedule.path(2)
