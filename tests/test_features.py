import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax.features import check_features, scaled_by_power_of_two, unit_rows


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((3, 0)), r"rows must be a non-empty matrix \(N, D\), got shape \(3, 0\)"),
        (np.zeros((2, 3, 4)), "flatten what follows the first axis"),
        (np.zeros((2, 3), int), "rows must be floats, got int64; use rows.astype"),
        (np.array([[0, 1], [0, np.nan], [np.inf, 0]]), r"2 row\(s\) of rows .* is row 1;"),
    ],
)
def test_bad_features_are_refused(features, message):
    with pytest.raises(ValueError, match=message):
        check_features(features, "rows")


def test_values_of_traced_features_are_not_looked_at():
    jax.jit(lambda rows: check_features(rows) or rows)(np.full((2, 2), np.nan))


def test_unit_rows_of_any_scale():
    rows = np.array([[3, -4], [0, 0], [1e-30, 0], [3e30, 4e30]], np.float32)
    expected = [[0.6, -0.8], [0, 0], [1, 0], [0.6, 0.8]]
    np.testing.assert_allclose(unit_rows(jnp.asarray(rows)), expected, rtol=1e-6)


@pytest.mark.parametrize("largest", [3.4e38, 1.0, 1e-37])
def test_scaling_by_a_power_of_two_rounds_nothing(largest):
    rows = np.float32(largest) * np.array([[0.25, -1.0], [0.5, 0.75]], np.float32)
    found = np.asarray(scaled_by_power_of_two(jnp.asarray(rows)))
    assert found.dtype == np.float32
    assert 2 <= np.abs(found).max() < 4
    np.testing.assert_array_equal(found / found[1, 0], rows / rows[1, 0])
    np.testing.assert_array_equal(np.frexp(found)[0], np.frexp(rows)[0])
    assert not scaled_by_power_of_two(jnp.zeros((2, 2))).any()
