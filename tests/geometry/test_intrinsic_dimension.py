import jax
import numpy as np
import pytest
from scipy.spatial import cKDTree

from recon_jax.geometry import intrinsic_dimension


def rng(seed=0):
    return np.random.default_rng(seed)


def sphere(count, dimension):
    points = rng().standard_normal((count, dimension + 1))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


def swiss_roll(count):
    angle, height = 1.5 * np.pi * (1 + 2 * rng().random(count)), 21 * rng(1).random(count)
    return np.stack([angle * np.cos(angle), height, angle * np.sin(angle)], 1)


def plane(count, dimension):
    """A cube of that dimension in 12 dimensions, off the origin."""
    return rng().random((count, dimension)) @ rng(1).standard_normal((dimension, 12)) + 3


CLOUDS = {
    "circle": (sphere(800, 1), 1),
    "sphere": (sphere(800, 2), 2),
    "swiss roll": (swiss_roll(800), 2),
    "plane": (plane(800, 4), 4),
}


def expected_two_nn(features, discard):
    """Log-likelihood of the kept ratios, the others known to be larger only, maximised on a grid.

    Without the factor (n - 1) / n that takes its bias away.
    """
    distances = cKDTree(features).query(features, 3)[0]
    x = np.sort(np.log(distances[:, 2] / distances[:, 1]))
    kept = len(x) - int(discard * len(x))
    rates = np.linspace(0.5, 10, 200001)
    likelihood = kept * np.log(rates) - rates * x[:kept].sum()
    likelihood -= (len(x) - kept) * rates * x[kept - 1]
    return rates[likelihood.argmax()] * (kept - 1) / kept


@pytest.mark.parametrize("cloud", CLOUDS)
@pytest.mark.parametrize("discard", [0.0, 0.1])
def test_two_nn_is_the_most_likely_dimension(cloud, discard):
    features, dimension = CLOUDS[cloud]
    found = intrinsic_dimension(features, discard=discard)
    np.testing.assert_allclose(found, expected_two_nn(features, discard), atol=1e-4)
    # Three standard errors of d / sqrt(n), as if points were independent, and curvature.
    assert abs(found - dimension) < 3 * dimension / np.sqrt(800) + 0.1


@pytest.mark.parametrize("discard", [0.0, 0.25])
def test_two_nn_is_unbiased(discard):
    # Points on a circle have neighbours on both sides, so that x is exactly exponential: few
    # points suffice to see a bias of 1 / n.
    estimates = []
    for seed in range(600):
        angle = 2 * np.pi * rng(seed).random(12)
        circle = 1000 * np.stack([np.cos(angle), np.sin(angle)], 1)
        estimates.append(float(intrinsic_dimension(circle, discard=discard)))
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert error < 0.025
    assert abs(np.mean(estimates) - 1) < 4 * error


def expected_local_pca(features, neighbors, share):
    index = cKDTree(features).query(features, neighbors + 1)[1]
    counts = []
    for members in index:
        rows = features[members] - features[members].mean(0)
        held = np.cumsum(np.linalg.svd(rows, compute_uv=False) ** 2)
        counts.append(np.argmax(held >= share * held[-1] * (1 - 1e-12)) + 1)
    return np.mean(counts)


@pytest.mark.parametrize(("neighbors", "share"), [(16, 0.95), (5, 0.7), (30, 1.0)])
def test_local_pca_counts_principal_components(neighbors, share):
    features = swiss_roll(300) @ np.linalg.qr(rng().standard_normal((9, 3)))[0].T
    found = intrinsic_dimension(features, "local_pca", num_neighbors=neighbors, share=share)
    expected = expected_local_pca(features, neighbors, share)
    np.testing.assert_allclose(found, expected, rtol=1e-14)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_local_pca_finds_the_dimension(cloud):
    features, dimension = CLOUDS[cloud]
    found = intrinsic_dimension(features, "local_pca", num_neighbors=24)
    assert abs(found - dimension) < 0.15 * dimension


@pytest.mark.parametrize("method", ["two_nn", "local_pca"])
def test_scale_does_not_matter_and_float32_is_kept(method):
    features = CLOUDS["plane"][0][:200]
    expected = intrinsic_dimension(features, method)
    moved = intrinsic_dimension(1e4 * features, method)
    np.testing.assert_allclose(moved, expected, rtol=1e-9)
    single = jax.jit(intrinsic_dimension, static_argnums=1)(features.astype(np.float32), method)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=1e-2)


def test_local_pca_survives_duplicates_and_lattices_have_no_ratio():
    line = np.repeat(np.arange(10.0)[:, None], 6, axis=0)
    assert intrinsic_dimension(line, "local_pca", num_neighbors=3) == 0
    assert intrinsic_dimension(line, "local_pca", num_neighbors=8) == 1
    square = np.array([[0.0, 0], [0, 1], [1, 0], [1, 1]])
    assert intrinsic_dimension(square) == np.inf


FEATURES = rng().standard_normal((10, 3))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((FEATURES, "pca"), {}, "unknown method 'pca'; choose one of two_nn, local_pca"),
        ((FEATURES[[0, 1, 2, 3, 3]],), {}, "2 of 5 points have a duplicate"),
        ((FEATURES[:2],), {}, "two_nn needs 3 points"),
        ((FEATURES,), {"discard": 0.95}, "2 that are kept; of 10 points 1 are, at discard=0.95"),
        ((FEATURES,), {"discard": 1.0}, r"discard=1.0 must lie in \[0, 1\)"),
        ((FEATURES, "local_pca"), {"num_neighbors": 10}, "num_neighbors=10"),
        (
            (FEATURES, "local_pca"),
            {"share": 0.0, "num_neighbors": 5},
            r"share=0.0 must lie in \(0, 1\]",
        ),
        ((np.ones((5, 3)),), {}, "constant"),
    ],
)
def test_bad_input_is_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        intrinsic_dimension(*arguments, **options)
