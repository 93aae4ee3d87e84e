"""Label alignment: what a linear read-out of features tells about the labels, against PCA."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Integer

from recon_jax.audit.intervals import bootstrap, undefined
from recon_jax.audit.readout import ReadOut, fit_read_out, read_out
from recon_jax.audit.records import LabelAlignment
from recon_jax.audit.subjects import Subjects


def label_fault(subjects: Subjects) -> str:
    """Why nothing about labels can be measured; "" if it can.

    Args:
      subjects: the images.
    """
    if subjects.train_labels is None:
        return "no labels"
    known = np.unique(subjects.train_labels)
    if len(known) < 2:
        return "the training images are of one class only"
    if not np.isin(subjects.test_labels, known).any():
        return "no test image is of a class that training images have"
    return ""


def label_errors(subjects: Subjects, fitted: ReadOut) -> Float[np.ndarray, " t"]:
    """Squared error of one-hot labels read linearly from features, for each test image.

    Args:
      subjects: the images, with labels.
      fitted: the features of these images.
    """
    predicted = read_out(fitted, _one_hot(subjects.train_labels, subjects.num_classes))
    targets = _one_hot(subjects.test_labels, subjects.num_classes)
    return np.square(targets - predicted).sum(1)


def pca_label_errors(subjects: Subjects, dimension: int) -> Float[np.ndarray, " t"]:
    """`label_errors` of the reconstruction-optimal encoder: the first principal components.

    Args:
      subjects: the images, with labels.
      dimension: how many, in 1 .. D'.
    """
    parts = (subjects.scores[:, :dimension], subjects.test_scores[:, :dimension])
    return label_errors(subjects, fit_read_out(*parts))


def label_alignment(
    subjects: Subjects,
    errors: Float[np.ndarray, " t"],
    pca_errors: Float[np.ndarray, " t"],
    pca_dimension: int,
    counts: Integer[np.ndarray, "r t"],
) -> LabelAlignment:
    """Held-out R^2 of the labels from features and from PCA of the same dimension, paired.

    R^2 = 1 - sum_n |y_n - p_n|^2 / sum_n |y_n - m|^2 over test images n, y one-hot, p its ridge
    prediction, m the class shares of the training images.

    Args:
      subjects: the images, with labels.
      errors: `label_errors` of the features.
      pca_errors: `pca_label_errors`.
      pca_dimension: of the latter.
      counts: resamples of the test images.

    Returns:
      The LabelAlignment.

    Source: Balestriero & LeCun 2024 (arXiv 2402.11337), alignment of reconstruction with labels;
    here on held-out images and for any features.
    """
    shares = _one_hot(subjects.train_labels, subjects.num_classes).mean(0)
    totals = np.square(_one_hot(subjects.test_labels, subjects.num_classes) - shares).sum(1)
    columns = np.stack([errors, pca_errors, totals], axis=1)
    return LabelAlignment(
        features=bootstrap(lambda own, pca, total: 1 - own / total, columns, counts),
        pca=bootstrap(lambda own, pca, total: 1 - pca / total, columns, counts),
        difference=bootstrap(lambda own, pca, total: (pca - own) / total, columns, counts),
        ratio=bootstrap(_ratio, columns, counts, _ratio_note(columns)),
        pca_dimension=pca_dimension,
    )


def undefined_alignment(note: str, pca_dimension: int) -> LabelAlignment:
    """No numbers, and why.

    Args:
      note: why.
      pca_dimension: as of `LabelAlignment`.
    """
    return LabelAlignment(*[undefined(note)] * 4, pca_dimension=pca_dimension)


def _ratio(own, pca, total):
    gained = np.asarray(total - pca, np.float64)
    return np.where(gained > 0, (total - own) / np.where(gained > 0, gained, 1), np.nan)


def _ratio_note(columns: np.ndarray) -> str:
    _, pca, total = columns.sum(0)
    return "" if pca < total else "PCA of this dimension explains nothing of the labels"


def _one_hot(labels: np.ndarray, num_classes: int) -> np.ndarray:
    return np.eye(num_classes)[labels]
