"""Schedules: their noise levels, and the paths of samplers through them."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from dpjax.core.errors import UserError
from dpjax.diffusion import schedules

K = 100
SCHEDULES = {
    "cosine": schedules.cosine,
    "linear": schedules.linear,
    "scaled_linear": schedules.scaled_linear,
    "sigmoid": schedules.sigmoid,
}
NOISE_LAST = np.linspace(1, 0, K) ** 2  # an ᾱ that falls from 1 to 0


@pytest.mark.parametrize("name", SCHEDULES)
def test_alpha_bar_equals_diffusers(golden, name):
    # K steps visit every level, noisiest first.
    alpha = SCHEDULES[name](K).path(K).now.alpha[::-1]
    want = golden("samplers")[f"alphas_cumprod/{name}"]
    np.testing.assert_allclose(alpha**2, want, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
def test_signal_and_noise_have_unit_variance_together(name):
    now = SCHEDULES[name](K).path(K).now
    np.testing.assert_allclose(now.alpha**2 + now.sigma**2, 1, atol=1e-6)
    assert (np.diff(now.alpha) > 0).all() and (np.diff(now.sigma) < 0).all()


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize("num_steps", [1, 8, 10, 16, 33, 60, 100])
def test_steps_equal_diffusers(golden, spacing, num_steps):
    got = schedules.SPACINGS[spacing](K, num_steps)
    np.testing.assert_array_equal(got, golden("samplers")[f"timesteps/{spacing}/{num_steps}"])


@pytest.mark.parametrize("num_levels", [1, 2, 7, 100, 1000])
@pytest.mark.parametrize("spacing", ["trailing", "auto"])
def test_every_number_of_steps_has_a_path_that_never_stands_still(num_levels, spacing):
    for num_steps in range(1, num_levels + 1, max(1, num_levels // 100)):
        steps = schedules.spaced_steps(np.linspace(1, 0, num_levels), num_steps, spacing)
        assert len(steps) == num_steps
        assert (np.diff(steps) < 0).all() and steps[-1] >= 0


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("num_steps", [1, 3, 10, 100])
def test_a_path_is_a_chain_from_noise_to_data(name, num_steps):
    now, to = SCHEDULES[name](K).path(num_steps)
    assert now.t.shape == to.t.shape == (num_steps,)
    assert to.alpha[-1] == 1 and to.sigma[-1] == 0 and to.t[-1] == 0
    for before, after in zip(jax.tree.leaves(now[1:]), jax.tree.leaves(to[:-1])):
        np.testing.assert_array_equal(before, after)
    assert now.t[-1] >= 0 and (np.diff(now.t) < 0).all()


@pytest.mark.parametrize(
    "num_steps, first",
    [(100, 99), (50, 98), (10, 90), (20, 95), (16, 99), (60, 99), (3, 99), (2, 99), (1, 99)],
)
def test_auto_is_leading_where_it_divides_and_starts_in_noise(num_steps, first):
    steps = schedules.cosine(K).path(num_steps).now.t
    np.testing.assert_array_equal(steps[0], first)
    spacing = "leading" if K % num_steps == 0 and num_steps >= 10 else "trailing"
    np.testing.assert_array_equal(steps, schedules.SPACINGS[spacing](K, num_steps))


def test_a_default_path_is_spaced_by_auto():
    for leaf, want in zip(
        jax.tree.leaves(schedules.cosine(K).path(10)),
        jax.tree.leaves(schedules.cosine(K).path(10, "auto")),
    ):
        np.testing.assert_array_equal(leaf, want)


@pytest.mark.parametrize("num_steps", [0, -1, 101])
@pytest.mark.parametrize("spacing", ["auto", "leading", "trailing"])
def test_too_few_and_too_many_steps_are_refused(num_steps, spacing):
    with pytest.raises(UserError, match=f"num_steps={num_steps} must be between 1 and .* 100"):
        schedules.cosine(K).path(num_steps, spacing)


def test_an_unknown_spacing_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="'leding' is unknown; did you mean 'leading'"):
        schedules.cosine(K).path(10, "leding")


def test_leading_steps_that_start_far_from_noise_are_refused():
    with pytest.raises(UserError, match="starts at level 59 of 100, where ᾱ = 0.34"):
        schedules.cosine(K).path(60, "leading")
    schedules.cosine(K).path(16, "leading")  # starts at level 90, ᾱ = .02


def test_training_draws_every_level_equally_often():
    level = schedules.cosine(4).draw(jax.random.key(0), (4000,))
    counts = np.bincount(level.t, minlength=4)
    assert len(counts) == 4 and (abs(counts - 1000) < 120).all()  # 4 standard deviations
    want = schedules.cosine(4).path(4).now[::-1]
    np.testing.assert_array_equal(level.alpha, want.alpha[level.t])
    np.testing.assert_array_equal(level.sigma, want.sigma[level.t])


def test_a_rectified_flow_is_a_straight_line_from_noise_to_data():
    now, to = schedules.rectified_flow(K).path(4)
    np.testing.assert_allclose(now.sigma, [1, 0.75, 0.5, 0.25])
    np.testing.assert_allclose(to.sigma, [0.75, 0.5, 0.25, 0])
    for level in (now, to):
        np.testing.assert_allclose(level.alpha, 1 - level.sigma)
        np.testing.assert_allclose(level.t, K * level.sigma)  # the network's time input


def test_a_rectified_flow_draws_every_time_equally_often():
    level = schedules.rectified_flow(K).draw(jax.random.key(0), (4000,))
    counts, _ = np.histogram(level.sigma, bins=4, range=(0, 1))
    assert (abs(counts - 1000) < 120).all()  # 4 standard deviations
    np.testing.assert_allclose(level.alpha + level.sigma, 1, atol=1e-6)
    np.testing.assert_allclose(level.t, K * level.sigma, rtol=1e-6)


def test_a_rectified_flow_refuses_spacings_of_levels():
    with pytest.raises(UserError, match="spacing='leading' does not go with a rectified flow"):
        schedules.rectified_flow(K).path(4, "leading")
    with pytest.raises(UserError, match="num_steps=0 must be at least 1"):
        schedules.rectified_flow(K).path(0)
    schedules.rectified_flow(K).path(3 * K, "trailing")  # time is continuous: any number of steps


def test_schedules_paths_and_their_checks_start_no_backend():
    """So a config can be checked in a moment, whatever devices there are."""
    code = """
import jax
from dpjax.core.errors import UserError
from dpjax.diffusion import diffusers_0_11, parameterization, samplers, schedules
from dpjax.policies import meanflow

made = [getattr(samplers, name)() for name in ("ddpm", "ddim", "dpm_solver", "heun")]
for name in ("cosine", "linear", "scaled_linear", "sigmoid", "rectified_flow"):
    schedule = getattr(schedules, name)(100)
    parameterization.check_prediction_type("v", schedule.path(10))
old, _ = diffusers_0_11.as_in("0.11", schedules.cosine(100), 100, "ddpm", made[0], "epsilon")
old.path(10)
meanflow.intervals(100, 0.25).path(2)
for wrong in (lambda: old.path(2), lambda: schedules.cosine(100).path(101)):
    try:
        wrong()
    except UserError:
        continue
    raise AssertionError("not refused")
assert not jax._src.xla_bridge.backends_are_initialized()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
