import jax
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


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.75, 1.0])
def test_filters_are_the_projections_under_jit(known, threshold):
    images, spectrum = known
    cells = spectral.subspaces_of([threshold], [threshold])
    filters = [jax.jit(spectral.subspace_filter(cell, spectrum)) for cell in cells]
    top, bottom, whole = (np.asarray(fn(images)) for fn in filters)
    for cell, found in zip(cells, (top, bottom, whole), strict=True):
        assert found.dtype == np.float32
        expected = spectral.project_on(images, cell, spectrum)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
    mean = np.asarray(spectrum.mean, np.float32).reshape(1, *images.shape[1:])
    np.testing.assert_allclose(top + bottom - mean, images, rtol=0, atol=2e-5)
    np.testing.assert_array_equal(whole, images)
    # A projection changes nothing the second time.
    for fn, once in zip(filters, (top, bottom, whole), strict=True):
        np.testing.assert_allclose(fn(once), once, rtol=0, atol=5e-5)


def test_a_filter_keeps_the_part_of_new_images(known):
    """Its own components pass, all others are set to the mean."""
    _, spectrum = known
    mean, vectors = np.asarray(spectrum.mean), np.asarray(spectrum.vectors)
    images = (mean[None] + 3 * vectors.T).reshape(-1, 4, 3, 2).astype(np.float32)
    cells = spectral.subspaces_of([0.75], [0.75])[:2]
    for cell in cells:
        kept, _ = spectral.kept_components(cell, spectrum)
        passed = np.zeros(len(vectors), bool)
        passed[kept] = True
        assert 0 < passed.sum() < len(passed)
        found = np.asarray(spectral.subspace_filter(cell, spectrum)(jnp.asarray(images)))
        weight = np.where(passed, 3.0, 0.0)[:, None]
        expected = (mean[None] + weight * vectors.T).reshape(images.shape)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)


def test_a_filter_refuses_images_of_another_size(known):
    cell = spectral.subspaces_of([0.75], [])[0]
    with pytest.raises(ValueError, match=r"images of shape \(4, 4, 2\) have 32 scalars, the basis"):
        spectral.subspace_filter(cell, known[1])(jnp.zeros((1, 4, 4, 2)))
