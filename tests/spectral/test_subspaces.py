import jax.numpy as jnp
import numpy as np
import pytest

from recon_jax import spectral


@pytest.fixture
def known(image_like):
    images, labels = image_like(60, (4, 3, 2), 3)
    moments = spectral.stream_moments([(images, labels)], 3)
    return images.astype(np.float32), spectral.eigendecompose(moments)


def test_thresholds_are_the_published_grids(known):
    values = np.asarray(known[1].values)
    explained = np.cumsum(values) / values.sum()
    top, bottom = spectral.subspace_thresholds(known[1])
    low, high = explained[1], explained[-2]
    np.testing.assert_allclose(top, np.linspace(low, high, 8), rtol=1e-12)
    np.testing.assert_allclose(bottom, low + np.linspace(0, 1, 8) ** 0.25 * (high - low))


def test_the_ends_of_the_published_grids(known):
    values = np.asarray(known[1].values)
    top, bottom = spectral.subspace_thresholds(known[1])
    kept = [spectral.kept_components(cell, known[1])[0] for cell in spectral.subspaces_of(
        [top[0]], [bottom[-1]]
    )]  # fmt: skip
    # The first top is the first component alone, the last bottom the last two.
    assert kept[0] == slice(0, 1)
    assert kept[1] == slice(len(values) - 2, None)
    assert kept[2] == slice(0, None)


def test_thresholds_need_something_to_split(known):
    with pytest.raises(ValueError, match="count must be at least 2"):
        spectral.subspace_thresholds(known[1], 1)
    flat = known[1]._replace(values=jnp.asarray([1.0, 1.0] + [0.0] * 22))
    with pytest.raises(ValueError, match="fewer than three components"):
        spectral.subspace_thresholds(flat)


def test_subspaces_are_ordered_by_what_they_keep():
    cells = spectral.subspaces_of([0.9, 0.5], [0.95, 0.8])
    assert [cell.label for cell in cells] == [
        "top 50%",
        "top 90%",
        "bottom 5%",
        "bottom 20%",
        "all",
    ]
    assert [cell.threshold for cell in cells] == [0.5, 0.9, 0.95, 0.8, 1.0]


@pytest.mark.parametrize("threshold", [0.3, 0.75, 0.99])
def test_top_and_bottom_add_up_to_the_image(known, threshold):
    images, spectrum = known
    top, bottom, whole = spectral.subspaces_of([threshold], [threshold])
    parts = [spectral.project_on(images, cell, spectrum) for cell in (top, bottom)]
    mean = np.asarray(spectrum.mean, np.float32).reshape(images.shape[1:])
    np.testing.assert_allclose(parts[0] + parts[1] - mean, images, atol=2e-5)
    assert spectral.project_on(images, whole, spectrum) is images
    shares = [spectral.kept_components(cell, spectrum)[1] for cell in (top, bottom, whole)]
    assert shares[0] + shares[1] == pytest.approx(100)
    assert shares[2] == 100
    assert shares[0] < 100 * threshold
    # Energy of the projections, against an independent SVD.
    centred = (images - mean).reshape(len(images), -1).astype(float)
    vectors = np.linalg.svd(centred - centred.mean(0))[2]
    rank = spectral.kept_components(top, spectrum)[0].stop
    expected = centred @ vectors[:rank].T @ vectors[:rank]
    found = (parts[0] - mean).reshape(len(images), -1)
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert 100 * np.sum(found**2) / np.sum(centred**2) == pytest.approx(shares[0], abs=1e-3)
