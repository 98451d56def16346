"""The normalizer: there and back, and nothing blown up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dpjax.core import normalizer as normalizers
from dpjax.core.errors import UserError

X = np.random.default_rng(0).normal(size=(500, 3)) * [1.0, 50.0, 0.01] + [0.0, 300.0, -2.0]


def fit(x, mode, **options):
    return normalizers.fit({"a": x}, {"a": mode}, **options)


def constant_dims(caplog):
    """The dims that were logged as constant, as in "a[1]"."""
    return [record.getMessage().split(" is constant")[0] for record in caplog.records]


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


@pytest.mark.parametrize("mode", ["limits", "gaussian", "quantile"])
def test_a_constant_dim_has_scale_one_and_is_logged(mode, caplog):
    noise = np.random.default_rng(1).uniform(-1e-5, 1e-5, 500)
    x = np.stack([X[:, 0], 3 + noise, np.full(500, 7.0)], axis=-1)
    fitted = fit(x, mode)
    np.testing.assert_array_equal(fitted.scale["a"][1:], 1)
    np.testing.assert_allclose(fitted.normalize({"a": x})["a"][:, 1:], 0, atol=1e-4)
    assert constant_dims(caplog) == ["a[1]", "a[2]"]
    assert "0.0001" in caplog.text


def test_a_dim_that_is_constant_but_for_an_outlier_is_not_blown_up(caplog):
    x = np.random.default_rng(1).uniform(-1e-6, 1e-6, (500, 1))
    x[3] = 1.0
    fitted = fit(x, "quantile")
    assert fitted.scale["a"][0] == 1
    assert constant_dims(caplog) == ["a[0]"]


def test_what_counts_as_constant_can_be_set():
    x = np.linspace(0, 1e-3, 10)[:, None]
    np.testing.assert_allclose(fit(x, "limits").scale["a"], 5e-4, rtol=1e-5)
    assert fit(x, "limits", min_range=1e-2).scale["a"] == 1


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
