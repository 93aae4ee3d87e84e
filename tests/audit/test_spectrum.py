import jax
import numpy as np
import pytest

from recon_jax.audit.intervals import resamples
from recon_jax.audit.readout import fit_read_out
from recon_jax.audit.spectrum import bands_of, spectrum_kept
from recon_jax.audit.subjects import gather_subjects

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def subjects(image_like):
    images, labels = image_like(400, (5, 4, 1), 3, decay=1.5)
    return gather_subjects(
        (images / 50, labels), None, num_images=None, num_test_images=None, seed=0
    )


@pytest.fixture(scope="module")
def counts():
    return resamples(jax.random.key(0), 80, 50)


def rows_of(subjects):
    return [images.reshape(len(images), -1) for images in (subjects.train, subjects.test)]


def test_bands_hold_every_direction_once(subjects):
    bands = dict(bands_of(subjects))
    assert list(bands) == ["0-50 %", "50-75 %", "75-90 %", "90-99 %", "99-100 %"]
    together = np.concatenate([np.arange(20)[rows] for rows in bands.values()])
    np.testing.assert_array_equal(together, np.arange(20))
    cumulative = np.cumsum(subjects.variance)
    for edge, rows in zip((0.5, 0.75, 0.9, 0.99), bands.values(), strict=False):
        assert rows.stop == np.sum(cumulative < edge)


def test_pixels_keep_everything(subjects, counts):
    kept, directions = spectrum_kept(subjects, fit_read_out(*rows_of(subjects)), counts)
    np.testing.assert_allclose(directions, 1, atol=1e-4)
    np.testing.assert_allclose([one.value for one in kept.kept if not one.note], 1, atol=1e-4)
    assert kept.total.value == pytest.approx(1, abs=1e-6)
    assert kept.excluded == 0
    assert sum(kept.directions) == 20
    np.testing.assert_allclose(sum(kept.shares), 1, rtol=1e-12)


def test_principal_components_keep_themselves_and_nothing_else(subjects, counts):
    parts = subjects.scores[:, :4], subjects.test_scores[:, :4]
    kept, directions = spectrum_kept(subjects, fit_read_out(*parts), counts)
    np.testing.assert_allclose(directions[:4], 1, atol=1e-6)
    np.testing.assert_allclose(directions[4:], 0, atol=1e-2)
    test = np.square(subjects.test_scores.astype(float))
    expected = test[:, :4].sum() / test.sum()
    assert kept.total.value == pytest.approx(expected, abs=1e-2)
    assert kept.total.low < kept.total.value < kept.total.high


def test_partial_knowledge_is_measured_by_band(subjects, counts):
    """Components of which half the variance is noise are kept by half."""
    signal = [subjects.scores, subjects.test_scores]
    noisy = [x + RNG.standard_normal(x.shape) * signal[0].std(0) for x in signal]
    kept, directions = spectrum_kept(subjects, fit_read_out(*noisy), counts)
    assert 0.3 < kept.total.value < 0.6
    assert 0.2 < directions.mean() < 0.6
    for one, (_, rows) in zip(kept.kept, bands_of(subjects), strict=True):
        if rows.stop == rows.start:
            assert np.isnan(one.value)
            assert "no eigen-direction" in one.note
            continue
        variance = np.square(subjects.test_scores[:, rows].astype(float)).sum(0)
        expected = np.average(directions[rows], weights=variance)
        assert one.value == pytest.approx(expected, abs=1e-12)


def test_rotation_and_scale_of_features_do_not_matter(subjects, counts):
    features = [np.tanh(rows[:, :7]) for rows in rows_of(subjects)]
    rotation = np.linalg.qr(RNG.standard_normal((7, 7)))[0]
    expected = spectrum_kept(subjects, fit_read_out(*features), counts)[1]
    moved = [30 * rows @ rotation + 2 for rows in features]
    found = spectrum_kept(subjects, fit_read_out(*moved), counts)[1]
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_constant_features_keep_nothing(subjects, counts):
    constant = [np.ones((len(rows), 3)) for rows in rows_of(subjects)]
    kept, directions = spectrum_kept(subjects, fit_read_out(*constant), counts)
    np.testing.assert_allclose(directions, 0, atol=1e-5)
    np.testing.assert_allclose(kept.total[:3], 0, atol=1e-5)
