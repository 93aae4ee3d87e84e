import jax
import numpy as np
import pytest

from recon_jax import spectral


@pytest.fixture(scope="module")
def images(image_like):
    pixels, labels = image_like(60, (4, 3, 2), 3)
    return pixels, labels


@pytest.fixture(scope="module")
def moments(images):
    return spectral.stream_moments([images], 3)


@pytest.fixture(scope="module")
def basis(moments):
    return spectral.ModeBasis(
        spectral.second_moment_spectrum(moments).vectors,
        spectral.eigendecompose(moments).vectors,
        moments.mean,
    )


def test_second_moment_is_that_of_images_about_the_origin(images, moments):
    x = images[0].reshape(60, -1)
    values, vectors = np.linalg.eigh(x.T @ x)
    found = spectral.second_moment_spectrum(moments)
    np.testing.assert_allclose(found.values, values[::-1], rtol=1e-9)
    overlap = np.abs(np.sum(np.asarray(found.vectors) * vectors[:, ::-1], axis=0))
    np.testing.assert_allclose(overlap, 1, atol=1e-9)
    np.testing.assert_array_equal(found.mean, 0)
    np.testing.assert_allclose(np.sum(found.values), np.sum(x**2))


def test_equal_images_have_no_second_moment_spectrum():
    moments = spectral.stream_moments([(np.ones((3, 4)), np.zeros(3, int))], 1)
    with pytest.raises(ValueError, match="all 3 images are the same"):
        spectral.second_moment_spectrum(moments)


def test_sums_equal_numpy_and_leave_out_padding(images, basis):
    x = images[0]
    other = np.random.default_rng(0).random(x.shape)
    mask = np.arange(60) < 50
    found = jax.jit(spectral.mode_sums)(other, x, basis, mask)
    rows, hats = x[:50].reshape(50, -1), other[:50].reshape(50, -1)
    np.testing.assert_allclose(
        found.energy, [np.sum((hats @ c) ** 2) for c in np.asarray(basis.directions).T]
    )
    centred = rows - images[0].reshape(60, -1).mean(0)
    overlap = [(hats @ u) @ (centred @ u) for u in np.asarray(basis.components).T]
    # The mean of the batch is not that of the data, so it is subtracted here as well.
    shift = np.asarray(basis.mean) @ np.asarray(basis.components)
    overlap -= shift * (centred @ np.asarray(basis.components)).sum(0)
    np.testing.assert_allclose(found.overlap, overlap, rtol=1e-9, atol=1e-9)


def test_sums_of_batches_add_up(images, basis):
    x, other = images[0], images[0] ** 2
    whole = spectral.mode_sums(other, x, basis, np.ones(60, bool))
    parts = [
        spectral.mode_sums(other[s], x[s], basis, np.ones(30, bool))
        for s in (slice(0, 30), slice(30, 60))
    ]
    for name in ("energy", "overlap"):
        np.testing.assert_allclose(
            getattr(whole, name), sum(np.asarray(getattr(part, name)) for part in parts)
        )


def test_fraction_is_the_regression_slope(images, moments, basis):
    x = images[0]
    other = np.random.default_rng(1).random(x.shape) + 0.3 * x
    sums = spectral.mode_sums(other, x, basis, np.ones(60, bool))
    found = spectral.reconstructed_fraction(
        np.asarray(sums.overlap), np.asarray(spectral.eigendecompose(moments).values)
    )
    for k, u in enumerate(np.asarray(basis.components).T):
        slope = np.polyfit(x.reshape(60, -1) @ u, other.reshape(60, -1) @ u, 1)[0]
        np.testing.assert_allclose(found[k], slope, rtol=1e-7)


def test_projection_holds_whole_modes_and_shrinkage_parts_of_them(images, moments, basis):
    x = images[0]
    spectrum = spectral.eigendecompose(moments)
    values = np.asarray(spectrum.values)
    everything = np.ones(60, bool)
    top = spectral.project(x, spectrum.vectors[:, :5], spectrum.mean)
    sums = spectral.mode_sums(top, x, basis, everything)
    found = spectral.reconstructed_fraction(np.asarray(sums.overlap), values)
    np.testing.assert_allclose(found, np.arange(24) < 5, atol=1e-9)

    # A linear autoencoder on its way: gradient flow at time t.
    flow = np.asarray(spectral.learned_fraction(spectrum, 5 / values[3]))
    u, mean = np.asarray(spectrum.vectors), np.asarray(spectrum.mean)
    hats = mean + (x.reshape(60, -1) - mean) @ u @ np.diag(flow) @ u.T
    sums = spectral.mode_sums(hats.reshape(x.shape), x, basis, everything)
    found = spectral.reconstructed_fraction(np.stack([sums.overlap, 2 * sums.overlap]), values)
    np.testing.assert_allclose(found, [flow, 2 * flow], atol=1e-9)


def test_modes_without_variance():
    # Rounding of pixels that are spread over many grey levels, measured.
    pixels = np.random.default_rng(0).random(200_000)
    noise = np.var(np.round(255 * pixels) / 255 - pixels)
    found = spectral.resolved_modes(np.array([1.0, 1.02 * noise, 0.98 * noise, 0.0]))
    np.testing.assert_array_equal(found, [True, True, False, False])
    values = np.array([1.0, 1e-9, 0.0])
    found = spectral.reconstructed_fraction(np.ones(3), values)
    np.testing.assert_array_equal(np.isfinite(found), [True, True, False])


def test_misfits_are_refused(images, basis):
    x = images[0]
    with pytest.raises(ValueError, match=r"reconstructions .* of images"):
        spectral.mode_sums(x[:, :2], x, basis, np.ones(60, bool))
    with pytest.raises(ValueError, match="have 12 scalars, the basis has 24"):
        spectral.mode_sums(x[:, :2], x[:, :2], basis, np.ones(60, bool))
