import numpy as np
import pytest

from recon_jax.probes import fit_standardizer, standardize

from . import reference


def test_matches_numpy():
    x, _ = reference.blobs()
    expected = (x - x.mean(0)) / x.std(0)
    np.testing.assert_allclose(standardize(fit_standardizer(x), x), expected, rtol=1e-10)


def test_test_features_use_train_statistics():
    x, _ = reference.blobs()
    out = standardize(fit_standardizer(x[:60]), x[60:])
    np.testing.assert_allclose(out, (x[60:] - x[:60].mean(0)) / x[:60].std(0), rtol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.0, 0.1, -1e6])
def test_a_constant_feature_becomes_zero_on_every_set(dtype, value):
    x, _ = reference.blobs(dtype=dtype)
    x[:, 2] = value
    fitted = fit_standardizer(x)
    assert fitted.inverse_std[2] == 0
    other = x.copy()
    other[:, 2] = 5.0
    out = np.asarray(standardize(fitted, other))
    assert out.dtype == dtype
    assert (out[:, 2] == 0).all()
    np.testing.assert_allclose(np.delete(out, 2, 1).std(0), 1, rtol=1e-4)


def test_a_small_variance_is_not_taken_for_a_constant():
    x, _ = reference.blobs()
    x[:, 0] = 1 + 1e-6 * x[:, 0]
    np.testing.assert_allclose(standardize(fit_standardizer(x), x)[:, 0].std(), 1, rtol=1e-6)


def test_another_dimension_is_refused():
    x, _ = reference.blobs()
    with pytest.raises(ValueError, match="3 features, but the training set had 7"):
        standardize(fit_standardizer(x), x[:, :3])
