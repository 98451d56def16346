"""The normalizer: there and back, and nothing blown up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpjax.core import normalizer as normalizers
from dpjax.core.errors import UserError

X = np.random.default_rng(0).normal(size=(500, 3)) * [1.0, 50.0, 0.2] + [0.0, 300.0, -2.0]


def fit(x, mode, **options):
    return normalizers.fit({"a": x}, {"a": mode}, **options)


@pytest.mark.parametrize("mode", normalizers.MODES)
def test_restore_inverts_normalize(mode, caplog):
    fitted = fit(X, mode)
    there = fitted.normalize({"a": X})["a"]
    assert there.dtype == jnp.float32
    assert not caplog.records
    np.testing.assert_allclose(fitted.restore("a", there), X, rtol=1e-5, atol=1e-5)


def test_limits_maps_the_range_to_plus_and_minus_one():
    there = fit(X, "limits").normalize({"a": X})["a"]
    np.testing.assert_allclose(there.min(0), -1, atol=1e-4)
    np.testing.assert_allclose(there.max(0), 1, atol=1e-4)


def test_gaussian_has_zero_mean_and_unit_variance():
    there = np.asarray(fit(X, "gaussian").normalize({"a": X})["a"], np.float64)
    np.testing.assert_allclose(there.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(there.std(0), 1, atol=1e-3)


def test_identity_changes_nothing():
    there = fit(X, "identity").normalize({"a": X})["a"]
    np.testing.assert_array_equal(there, X.astype(np.float32))


def test_one_outlier_does_not_move_the_quantiles():
    spoilt = X.copy()
    spoilt[7] = 1e6
    clean = fit(X, "quantile")
    dirty = fit(spoilt, "quantile")
    np.testing.assert_allclose(dirty.scale["a"], clean.scale["a"], rtol=0.1)
    assert (fit(spoilt, "limits").scale["a"] > 1e5).all()


SCALED = ["limits", "gaussian", "quantile"]  # the modes that look at the data


@pytest.mark.parametrize("mode", normalizers.MODES)
def test_a_constant_action_comes_back_exactly_whatever_the_network_says(mode, caplog):
    noise = np.random.default_rng(1).uniform(-1e-7, 1e-7, 500)
    x = np.stack([X[:, 0], 3 + noise, np.full(500, 0.3), np.zeros(500)], axis=-1)
    fitted = normalizers.fit({"action": x}, {"action": mode})
    # Infinity as well: 0 * infinity is NaN.
    for output in (0.7, -1e30, np.inf):
        back = fitted.restore("action", jnp.full((2, 4), output))
        np.testing.assert_array_equal(back[:, 2:], np.float32([[0.3, 0.0]] * 2))
        np.testing.assert_allclose(back[:, 1], 3, atol=3e-7)
    np.testing.assert_array_equal(fitted.normalize({"action": x})["action"][:, 1:], 0)
    assert "action[1-3] is constant" in caplog.text and "exactly" in caplog.text


def test_unknown_steps_stay_unknown_in_constant_dims():
    fitted = normalizers.fit({"action": np.full((9, 2), 0.3)}, {"action": "limits"})
    assert np.isnan(fitted.normalize({"action": np.full((1, 2), np.nan)})["action"]).all()


@pytest.mark.parametrize("mode", SCALED)
def test_an_observation_that_hardly_moves_is_scaled_by_its_column(mode, caplog):
    rng = np.random.default_rng(1)
    noise = rng.uniform(-1e-4, 1e-4, 500)
    # Noise around 0; a reading that varies in its fifth digit; and one that is constant.
    x = np.stack([X[:, 0], noise, 700 + 20 * noise, np.full(500, 7.0)], axis=-1)
    fitted = fit(x, mode)
    np.testing.assert_allclose(fitted.scale["a"], fitted.scale["a"][0])
    np.testing.assert_allclose(fitted.normalize({"a": x})["a"][:, 1:], 0, atol=5e-3)
    assert "a[3] is constant" in caplog.text
    assert "a[1-2] moves little, by 0.00" in caplog.text
    assert "set min_range=0.0001 to" in caplog.text


@pytest.mark.parametrize("mode", SCALED)
def test_an_action_that_hardly_moves_is_scaled_by_its_own_range(mode, caplog):
    x = np.stack([X[:, 0], 4e-5 * X[:, 0], 700 + 4e-3 * X[:, 0]], axis=-1)
    there = normalizers.fit({"action": x}, {"action": mode}).normalize({"action": x})["action"]
    np.testing.assert_allclose(there[:, 1], there[:, 0], atol=1e-5)
    np.testing.assert_allclose(there[:, 2], there[:, 0], atol=0.1)  # float32 near 700
    assert "action[1-2] moves little" in caplog.text and "so that it is learned" in caplog.text


def test_the_remedies_of_the_lines_change_what_they_say(caplog):
    x = np.stack([X[:, 0], 4e-5 * X[:, 0]], axis=-1)
    columns = {"a": x, "action": x}
    modes = dict.fromkeys(columns, "limits")
    lines = []
    normalizers.fit(columns, modes, warn=lines.append)
    below, above = (float(line.split("min_range=")[1].split()[0]) for line in lines)
    own = normalizers.fit(columns, modes, min_range=below, warn=lines.append)
    assert len(lines) == 2  # nothing else is said
    np.testing.assert_allclose(own.scale["a"][1] / own.scale["a"][0], 4e-5, rtol=1e-5)
    assert normalizers.fit(columns, modes, min_range=above).scale["action"][1] == 0


@pytest.mark.parametrize("mode", SCALED)
def test_units_do_not_matter(mode):
    rng = np.random.default_rng(2)
    x = np.stack([X[:, 1], 1e-4 * X[:, 0], 5 + 1e-5 * X[:, 0], np.full(500, 0.3)], axis=-1)
    x = np.concatenate([x, 1e-7 * rng.normal(size=(500, 1))], axis=1)
    for key in ("a", "action"):
        metres = normalizers.fit({key: x}, {key: mode})
        millimetres = normalizers.fit({key: 1000 * x}, {key: mode})
        for part in ("offset", "scale"):
            want = 1000 * getattr(metres, part)[key]
            np.testing.assert_allclose(getattr(millimetres, part)[key], want, rtol=1e-5)


def test_a_column_of_constants_has_the_scale_of_its_size():
    for size in (1e-3, 1.0, 1e3):
        x = np.full((50, 2), [0.5, -2.0]) * size
        np.testing.assert_allclose(fit(x, "limits").scale["a"], 2 * size, rtol=1e-6)
    assert (fit(np.zeros((50, 2)), "limits").scale["a"] == 1).all()


def test_a_dim_that_is_constant_but_for_an_outlier_is_not_blown_up(caplog):
    x = 1 + np.random.default_rng(1).uniform(-1e-8, 1e-8, (500, 1))
    x[3] = 2.0
    # Both quantiles are equal: the whole range is left to scale by.
    assert fit(x, "quantile").scale["a"][0] == pytest.approx(0.5)
    assert "a[0] is equal at both quantiles" in caplog.text
    moving = normalizers.fit({"action": x}, {"action": "quantile"})
    assert np.asarray(moving.normalize({"action": x})["action"]).max() == pytest.approx(1)


def test_what_counts_as_constant_can_be_set_in_the_units_of_the_data():
    x = np.linspace(0, 1e-3, 10)[:, None]
    np.testing.assert_allclose(fit(x, "limits").scale["a"], 5e-4, rtol=1e-5)
    assert fit(x, "limits", min_range=1e-2).scale["a"] == 1
    assert normalizers.fit({"action": x}, {"action": "limits"}, min_range=1e-2).scale["action"] == 0
    # Above the range of a dim next to a wide one, its own range counts.
    x = np.stack([1e4 * x[:, 0], x[:, 0]], axis=-1)
    np.testing.assert_allclose(fit(x, "limits", min_range=1e-4).scale["a"], [5, 5e-4], rtol=1e-5)


def test_rotations_keep_their_units_and_constant_ones_come_back_exactly(caplog):
    x = np.stack([X[:, 0], np.tanh(X[:, 0]), np.full(500, 1.0)], axis=-1)
    flags = np.array([False, True, True])
    for key, want in (("a", [1, 1]), ("action", [1, 0])):
        fitted = normalizers.fit({key: x}, {key: "limits"}, fixed={key: flags})
        np.testing.assert_array_equal(fitted.scale[key][1:], want)
    assert not caplog.records


@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 4, 3)])
def test_any_leading_shape_is_normalized(shape):
    fitted = fit(X, "limits")
    x = np.broadcast_to(X[0], shape)
    want = (X[0] - fitted.offset["a"]) / fitted.scale["a"]
    there = fitted.normalize({"a": x})["a"]
    np.testing.assert_allclose(there, np.broadcast_to(want, shape), rtol=1e-6)
    assert fitted.restore("a", jnp.zeros(shape)).shape == shape


def test_a_key_without_statistics_is_an_error_that_names_the_keys():
    fitted = fit(X, "limits")
    with pytest.raises(UserError, match="no statistics for 'b'; choose one of a"):
        fitted.normalize({"b": X})
    with pytest.raises(UserError, match="no statistics for 'b'"):
        fitted.restore("b", X)


def test_an_unknown_mode_is_refused_with_the_nearest_name():
    with pytest.raises(UserError, match="modes.a='limit' is unknown; .*'limits'") as error:
        fit(X, "limit")
    assert error.value.argument == "modes.a"


def test_a_normalizer_is_a_tree_of_float32_that_jit_takes():
    fitted = fit(X, "limits")
    assert {leaf.dtype.name for leaf in jax.tree.leaves(fitted)} == {"float32"}
    x = jax.jit(lambda fitted, x: fitted.restore("a", fitted.normalize({"a": x})["a"]))
    np.testing.assert_allclose(x(fitted, X), X, rtol=1e-5, atol=1e-5)
