import jax
import numpy as np
import pytest

from recon_jax.audit.intervals import resamples
from recon_jax.audit.labels import (
    label_alignment,
    label_errors,
    label_fault,
    pca_label_errors,
    undefined_alignment,
)
from recon_jax.audit.readout import fit_read_out
from recon_jax.audit.subjects import gather_subjects


@pytest.fixture(scope="module")
def subjects(image_like):
    images, labels = image_like(200, (5, 4, 1), 3)
    return gather(images, labels)


def gather(images, labels, test=None):
    return gather_subjects(
        (images / 50, labels), test, num_images=None, num_test_images=None, seed=0
    )


@pytest.fixture(scope="module")
def counts():
    return resamples(jax.random.key(0), 40, 50)


def errors_of(subjects, train, test):
    return label_errors(subjects, fit_read_out(train, test))


def test_labels_themselves_explain_all_and_constants_nothing(subjects, counts):
    hot = [np.eye(3)[labels] for labels in (subjects.train_labels, subjects.test_labels)]
    pca = pca_label_errors(subjects, 3)
    found = label_alignment(subjects, errors_of(subjects, *hot), pca, 3, counts)
    assert found.features.value == pytest.approx(1, abs=1e-9)
    assert found.pca_dimension == 3
    expected = 1 - found.pca.value
    assert found.difference.value == pytest.approx(expected, abs=1e-9)
    assert found.ratio.value == pytest.approx(1 / found.pca.value, rel=1e-6)
    nothing = errors_of(subjects, *[np.ones((len(rows), 2)) for rows in hot])
    found = label_alignment(subjects, nothing, pca, 3, counts)
    np.testing.assert_allclose(found.features[:3], 0, atol=1e-12)


def test_matches_least_squares(subjects, counts):
    """Where features hold the labels well, generalised cross-validation hardly shrinks."""
    rng = np.random.default_rng(1)
    labels = (subjects.train_labels, subjects.test_labels)
    train, test = (np.eye(3)[y][:, :2] + 0.1 * rng.standard_normal((len(y), 2)) for y in labels)
    found = label_alignment(
        subjects, errors_of(subjects, train, test), pca_label_errors(subjects, 2), 2, counts
    )
    design = np.c_[train, np.ones(len(train))]
    weights = np.linalg.lstsq(design, np.eye(3)[labels[0]], rcond=None)[0]
    residual = np.eye(3)[labels[1]] - np.c_[test, np.ones(len(test))] @ weights
    shares = np.eye(3)[labels[0]].mean(0)
    expected = 1 - np.square(residual).sum() / np.square(np.eye(3)[labels[1]] - shares).sum()
    assert found.features.value == pytest.approx(expected, abs=1e-3)


def test_pca_is_no_better_than_itself(subjects, counts):
    errors = errors_of(subjects, subjects.scores[:, :5], subjects.test_scores[:, :5])
    found = label_alignment(subjects, errors, pca_label_errors(subjects, 5), 5, counts)
    assert found.difference[:3] == (0, 0, 0)
    assert found.ratio[:3] == (1, 1, 1)


def test_features_that_ruin_nothing_leave_no_ratio(subjects, counts):
    errors = np.ones(40)
    worse = 10 * np.ones(40)
    found = label_alignment(subjects, errors, worse, 5, counts)
    assert found.pca.value < 0
    assert np.isnan(found.ratio.value)
    assert "explains nothing" in found.ratio.note
    assert found.difference.value > 0


def test_faults(image_like):
    images, labels = image_like(60, (4, 3, 1), 3)
    assert label_fault(gather(images, labels)) == ""
    assert label_fault(gather(images, None)) == "no labels"
    assert "one class only" in label_fault(gather(images, np.full(60, 2)))
    # One image a class: those of the test images were never seen.
    assert "no test image" in label_fault(gather(images, np.arange(60)))
    shot = gather(images[:5], np.arange(5), (images / 50, np.arange(60) % 5))
    assert label_fault(shot) == ""
    assert np.isfinite(pca_label_errors(shot, 3)).all()
    assert undefined_alignment("why", 4).ratio.note == "why"


def test_classes_without_training_images_are_missed(image_like):
    images, labels = image_like(60, (4, 3, 1), 3)
    seen = labels < 2
    subjects = gather(images[seen], labels[seen], (images / 50, labels))
    hot = [np.eye(3)[part] for part in (subjects.train_labels, subjects.test_labels)]
    errors = errors_of(subjects, *hot)
    assert subjects.num_classes == 3
    assert errors[subjects.test_labels == 2].min() >= 1
    np.testing.assert_allclose(errors[subjects.test_labels < 2], 0, atol=1e-12)
