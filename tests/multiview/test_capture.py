import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax import multiview

# Five kernels, the two features of each of two classes.
TABLE = np.asarray(
    [
        [1.0, 0.2, 0.0, 0.0],
        [0.1, 0.29, 0.05, 0.0],
        [0.0, 0.0, 2.0, 0.7],
        [0.0, 0.0, 0.0, 0.6],
        [-3.0, -0.5, -0.1, 0.01],
    ]
)


def test_a_feature_is_captured_relative_to_the_winners():
    # Best 1.0, .29, 2.0, .7; winners 1 and 2, their median 1.5.
    for fraction, expected in [
        (0.3, [1, 0, 1, 1]),
        (0.19, [1, 1, 1, 1]),
        (0.47, [1, 0, 1, 0]),
        (0.7, [0, 0, 1, 0]),
        (0.0, [1, 1, 1, 1]),
    ]:
        found = multiview.captured(TABLE, fraction)
        assert found.dtype == bool
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(multiview.captured(TABLE), multiview.captured(7 * TABLE))


def test_purity_counts_live_kernels_only():
    # Live from 0.45 on: kernels 0 (second .2), 2 (.7 of 2.0) and 3.
    assert multiview.kernel_purity(TABLE) == pytest.approx(2 / 3)
    assert multiview.kernel_purity(TABLE, 0.35) == pytest.approx(1)
    # Live from 0.27 on: kernel 1 as well, which is not pure.
    assert multiview.kernel_purity(TABLE, 0.18) == pytest.approx(1 / 4)


def test_no_live_kernel_is_reported():
    for table in (-np.abs(TABLE), np.zeros((3, 4))):
        np.testing.assert_array_equal(multiview.captured(table), False)
        assert np.isnan(multiview.kernel_purity(table))
    assert np.isnan(multiview.norm_growth(np.zeros((2, 3)), np.ones((2, 3))))
    np.testing.assert_array_equal(multiview.aligned(np.zeros((2, 3)), np.eye(3)[:2]), False)


def test_correlations_and_cosines():
    rng = np.random.default_rng(0)
    features = np.linalg.qr(rng.standard_normal((6, 6)))[0][:4]
    kernels = 1e-3 * np.stack([features[0] + features[1], features[2] + 2 * features[3]])
    np.testing.assert_allclose(
        multiview.feature_correlation(kernels, features),
        1e-3 * np.asarray([[1, 1, 0, 0], [0, 0, 1, 2]]),
        atol=1e-15,
    )
    # Cosines .707, .707, .447, .894.
    np.testing.assert_array_equal(multiview.aligned(kernels, features), [1, 1, 0, 1])
    np.testing.assert_array_equal(multiview.aligned(kernels, features, 0.8), [0, 0, 0, 1])
    np.testing.assert_array_equal(multiview.aligned(kernels, features, 0.44), [1, 1, 1, 1])
    single = multiview.feature_correlation(kernels.astype("f4"), features.astype("f4"))
    assert single.dtype == jnp.float32


def test_growth_is_that_of_most_kernels():
    start = np.diag([1.0, 2.0, 4.0, 0.0])
    # One kernel that runs away and one that did not exist tell nothing of the others.
    end = -np.diag([0.5, 1.4, 4000.0, 1.0])
    assert multiview.norm_growth(start, end) == pytest.approx(0.7)
    assert multiview.norm_growth(3 * start, 3 * end) == pytest.approx(0.7)


def test_winners_are_sought_among_the_kernels_of_the_class():
    own = np.asarray([[0.1, 0.2, 9, 9], [0.3, 0.1, 9, 9], [9, 0, 0.1, 0.2], [9, 0, -1, 0.1]])
    np.testing.assert_array_equal(multiview.winning_views(own), [0, 1])
    np.testing.assert_array_equal(multiview.winning_views(own[:, [1, 0, 3, 2]]), [1, 0])
    np.testing.assert_array_equal(multiview.winning_views(np.zeros((4, 4))), [0, 0])


def test_coverage_is_that_of_collecting_coupons():
    drawn = np.random.default_rng(0).integers(0, 10, (20_000, 15))
    share = np.mean([len(np.unique(row)) for row in drawn]) / 10
    assert multiview.expected_coverage(10, 15) == pytest.approx(share, abs=0.003)
    assert multiview.expected_coverage(10, 50) == pytest.approx(0.99485, abs=1e-5)
    assert multiview.expected_coverage(4, 0) == 0
    assert multiview.expected_coverage(1, 1) == 1


def test_measures_can_be_jitted_and_vmapped():
    tables = jnp.asarray([TABLE, -np.abs(TABLE)])
    found, pure = jax.jit(jax.vmap(lambda t: (multiview.captured(t), multiview.kernel_purity(t))))(
        tables
    )
    np.testing.assert_array_equal(found, [[1, 0, 1, 1], [0, 0, 0, 0]])
    np.testing.assert_allclose(pure, [2 / 3, np.nan])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: multiview.captured(TABLE, 1.2), r"fraction=1\.2 must lie in \[0, 1\]"),
        (lambda: multiview.captured(TABLE[:, :3]), "with 3 features; every class has two"),
        (lambda: multiview.kernel_purity(TABLE, -1.0), r"fraction=-1\.0 must lie"),
        (lambda: multiview.kernel_purity(np.full((2, 2), np.nan)), "holds 4 NaN"),
        (lambda: multiview.winning_views(TABLE), "5 kernels are not shared evenly by 2 classes"),
        (lambda: multiview.aligned(TABLE, TABLE, 2.0), r"cosine=2\.0 must lie in \[0, 1\]"),
        (lambda: multiview.expected_coverage(0, 3), "num_features=0 must be an integer"),
        (lambda: multiview.expected_coverage(3, -1), "num_kernels=-1 must be an integer"),
        (
            lambda: inspect.unwrap(multiview.feature_correlation)(TABLE, TABLE[:, :2]),
            "kernels have 4 entries and features 2",
        ),
        (
            lambda: inspect.unwrap(multiview.norm_growth)(TABLE, TABLE[:2]),
            r"kernels of shape \(2, 4\) did not start as \(5, 4\)",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
