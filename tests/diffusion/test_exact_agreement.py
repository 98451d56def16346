"""Agreement with the last chunk where the answer is known: exact denoisers, without training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpjax.diffusion import agreement, samplers, sampling, schedules
from dpjax.diffusion.agreement import Agreement
from dpjax.diffusion.parameterization import Estimate

PATH = schedules.cosine(100).path(10)

# A Gaussian chunk, whose conditional mean is known ----------------------------------------------

STD, COMMITTED, LENGTH = 0.4, 4, 16
J = np.arange(LENGTH)
PRIORS = {
    "ar1": STD**2 * 0.9 ** np.abs(J[:, None] - J),
    "smooth": STD**2 * (np.exp(-0.5 * ((J[:, None] - J) / 4.0) ** 2) + 1e-3 * np.eye(LENGTH)),
}


def gaussian_errors(prior, method):
    """(of the committed prefix, of the mean of the other steps), in std of the data."""
    covariance = PRIORS[prior]
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = jnp.asarray(values, jnp.float32), jnp.asarray(vectors, jnp.float32)

    def predict(x, level):  # exact: x_0 = α C (α² C + σ²)⁻¹ x
        gain = level.alpha * values / (level.alpha**2 * values + level.sigma**2)
        x0 = jnp.einsum("ij,j,kj,bkd->bid", vectors, gain, vectors, x)
        return Estimate(x0, (x - level.alpha * x0) / level.sigma)

    x = sampling.draw_noise(jax.random.split(jax.random.key(0), 2000), (LENGTH, 1))
    keys = jax.random.split(jax.random.key(1), len(x))
    last = jnp.where(jnp.arange(LENGTH) < COMMITTED, 1.5 * STD, jnp.nan)
    last = jnp.broadcast_to(last[:, None], x.shape)
    if method:
        predict = agreement.agree(
            Agreement(method),
            predict,
            last,
            jnp.full(len(x), COMMITTED),
            observed=1,
            size=1,
            path=PATH,
        )
    chunk = np.asarray(sampling.sample(predict, x, PATH, keys, sampler=samplers.ddim()))[..., 0]
    given = np.full(COMMITTED, 1.5 * STD)
    first, rest = slice(COMMITTED), slice(COMMITTED, None)
    mean = covariance[rest, first] @ np.linalg.solve(covariance[first, first], given)
    error = lambda difference: float(np.sqrt(np.mean(difference**2)) / STD)
    return error(chunk[:, first] - given), error(chunk[:, rest].mean(0) - mean)


@pytest.mark.parametrize(("prior", "most"), [("ar1", 0.12), ("smooth", 0.4)])
def test_line_finds_the_conditional_mean_of_a_gaussian_chunk(prior, most):
    prefix, postfix = gaussian_errors(prior, "line")
    assert prefix <= 0.06 and postfix <= most
    free = gaussian_errors(prior, None)
    assert free[0] > 1 and free[1] > 2 * postfix
    # Without the Jacobian the other steps do not follow the given ones; with β = 5 they do little.
    for method in ("blend", "rtc"):
        assert gaussian_errors(prior, method)[1] > postfix


# Two ways round an obstacle ---------------------------------------------------------------------

SPEED = 0.04  # per step


def two_modes(position):
    """The exact denoiser of a policy that goes up or down from `position` [B]."""
    values, vectors = np.linalg.eigh(PRIORS["smooth"] * (0.03 / STD) ** 2)
    values, vectors = jnp.asarray(values, jnp.float32), jnp.asarray(vectors, jnp.float32)
    ramp = SPEED * (jnp.arange(LENGTH) + 1.0)
    means = jnp.stack([position[:, None] + ramp, position[:, None] - ramp], 1).clip(-1, 1)

    def predict(x, level):
        a, variance = level.alpha, level.alpha**2 * values + level.sigma**2
        off = (x[:, None, :, 0] - a * means) @ vectors  # [B, 2, Tp]
        likelihood = jnp.stack([3 * position, -3 * position], 1) - 0.5 * (off**2 / variance).sum(-1)
        each = means + (off * (a * values / variance)) @ vectors.T
        x0 = (jax.nn.softmax(likelihood, -1)[..., None] * each).sum(1)[..., None]
        return Estimate(x0, (x - a * x0) / level.sigma)

    return predict


@functools.partial(jax.jit, static_argnames="method")
def chunk_of(keys, position, last, committed, method):
    predict = two_modes(position)
    if method:
        predict = agreement.agree(
            Agreement(method), predict, last, committed, observed=1, size=1, path=PATH
        )
    x = sampling.draw_noise(keys, (LENGTH, 1))
    return sampling.sample(predict, x, PATH, keys, sampler=samplers.ddim())


def jumps(method, delay, runs=500, steps=48, executed=8):
    """How often per run a new chunk begins far from where the last one goes on."""
    rng = np.random.default_rng(0)
    position = np.zeros(runs)
    chunk, start, count, ended = None, 0, np.zeros(runs), np.zeros(runs, bool)
    for k in range(steps):
        if k % executed == 0:
            last = np.full((runs, LENGTH, 1), np.nan, np.float32)
            if chunk is not None:
                last[:, : LENGTH - (k - start)] = chunk[:, k - start :]
            committed = np.full(runs, delay if k else 0, np.int32)
            keys = jax.random.split(jax.random.fold_in(jax.random.key(0), k), runs)
            new = np.asarray(chunk_of(keys, position, last, committed, method))
            made = k
        if k == made + (delay if made else 0):
            if made:
                far = np.abs(new[:, k - made, 0] - chunk[:, k - start, 0]) > 4 * SPEED
                count += far & ~ended
            chunk, start = new, made
        # The plant lags behind its target.
        position = position + 0.5 * (chunk[:, k - start, 0] - position)
        position = (position + 0.005 * rng.normal(size=runs)).astype(np.float32)
        ended |= np.abs(position) > 0.9
    return count.mean()


@pytest.mark.slow
@pytest.mark.parametrize("delay", [2, 4, 6])
def test_line_does_not_change_its_mind_between_two_ways(delay):
    assert jumps(None, delay) >= 0.5
    assert jumps("line", delay) <= 0.02
