"""What an affine map reads from features: ridge regression of many targets at once.

On the host in float64 whatever the features are: a direction with a millionth of the variance must
be told from rounding. Features enter through eigenpairs of their scatter alone, so that all
penalties and targets share them.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

# Relative to the largest eigenvalue of the features' scatter; infinity predicts the mean.
PENALTIES = (1e-10, 1e-8, 1e-6, 1e-4, 1e-2, 1.0, np.inf)
FOLDS = 5
# Images that choose the penalties; more folds are not fitted, and more images of one not used.
ENOUGH = 1000
_BLOCK = 4096  # rows in float64 at a time
_ROUNDING = 1e-14  # of eigenvalues of a float64 scatter


class Coordinates(NamedTuple):
    """Training features in the coordinates in which ridge regression is diagonal.

    Attributes:
      features: (N, K), as they came.
      mean: of them (K,).
      vectors: their principal directions (K, R), R the rank.
      values: eigenvalues of their scatter (R,), descending, positive.
    """

    features: Float[np.ndarray, "n k"]
    mean: Float[np.ndarray, " k"]
    vectors: Float[np.ndarray, "k r"]
    values: Float[np.ndarray, " r"]

    def scores(self, features: Float[np.ndarray, "t k"]) -> Float[np.ndarray, "t r"]:
        """Coordinates of other features (T, K)."""
        return (features - self.mean) @ self.vectors


class ReadOut(NamedTuple):
    """Features, ready for any targets.

    Attributes:
      whole: of all training images.
      folds: of the training images outside a fold, and the scores of those in it.
      test_scores: of the test images (T, R).
    """

    whole: Coordinates
    folds: tuple[tuple[Coordinates, Float[np.ndarray, "..."]], ...]
    test_scores: Float[np.ndarray, "t r"]


def fit_read_out(
    features: Float[np.ndarray, "n k"], test_features: Float[np.ndarray, "t k"]
) -> ReadOut:
    """Principal coordinates of features, for `read_out`.

    Args:
      features: of the training images in random order (N, K). Time grows as K^2 max(N, K), or as
        N^2 max(N, K) where K > N.
      test_features: of the test images (T, K).

    Returns:
      The ReadOut; its rank is 0 if the features are constant.
    """
    if features.shape[1] > len(features):
        features, test_features = _in_row_space(features, test_features)
    whole = _coordinates(features)
    folds = []
    for outside, inside in _fold_rows(len(features)):
        fold = _coordinates(features[outside])
        folds.append((fold, fold.scores(features[inside])))
    return ReadOut(whole, tuple(folds), whole.scores(test_features))


def _fold_rows(count: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Rows outside and inside of the folds that are used; those inside are cut to `ENOUGH`."""
    used = min(FOLDS, count, math.ceil(ENOUGH / (count / FOLDS)))
    fold = np.arange(count) % min(FOLDS, count)
    parts = [(np.flatnonzero(fold != number), fold == number) for number in range(used)]
    return [(outside, np.flatnonzero(inside)[:ENOUGH]) for outside, inside in parts]


def _in_row_space(features: np.ndarray, test_features: np.ndarray) -> tuple:
    """Coordinates (N, R), R < N, in the span of the centred training features, and of the test's.

    Ridge regression reads nothing else.
    """
    mean = features.mean(0, dtype=np.float64)
    centred = features - mean
    values, vectors = _positive_eigenpairs(centred @ centred.T)
    scores = vectors * np.sqrt(values)
    return scores, (test_features - mean) @ (centred.T @ (scores / values))


def _coordinates(features: np.ndarray) -> Coordinates:
    mean = features.mean(0, dtype=np.float64)
    values, vectors = _positive_eigenpairs(_products(features, mean, features, mean))
    return Coordinates(features, mean, vectors, values)


def _positive_eigenpairs(scatter: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh(scatter)
    values, vectors = values[::-1], vectors[:, ::-1]
    keep = values > len(values) * _ROUNDING * max(values[:1].max(initial=0), 0)
    return values[keep], vectors[:, keep]


def _products(
    left: np.ndarray, left_mean: np.ndarray, right: np.ndarray, right_mean: np.ndarray
) -> np.ndarray:
    """Centred left^T centred right, without a copy of either in float64."""
    total = np.zeros((left.shape[1], right.shape[1]))
    for start in range(0, len(left), _BLOCK):
        rows = slice(start, start + _BLOCK)
        total += (left[rows] - left_mean).T @ (right[rows] - right_mean)
    return total


def read_out(fitted: ReadOut, targets: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "t m"]:
    """Predictions of targets for the test images.

    With centred features F = P diag(s) Q^T and penalty l, ridge predicts
    mean + F_test Q diag(1 / (s^2 + l)) diag(s) P^T (targets - mean). Each target has the penalty,
    of `PENALTIES` times s_1^2, of least squared error in five-fold cross-validation over the
    training images, of which one fold is enough if it holds 1,000.

    Args:
      fitted: of the features.
      targets: of the training images (N, M).

    Returns:
      Predictions (T, M), float64.
    """
    errors = np.zeros((len(PENALTIES), targets.shape[1]))
    for (fold, scores), (outside, inside) in zip(
        fitted.folds, _fold_rows(len(targets)), strict=True
    ):
        mean, cross = _projected(fold, targets[outside])
        held = targets[inside] - mean
        for row, penalty in enumerate(PENALTIES):
            errors[row] += np.square(held - scores @ _weights(fold, cross, penalty)).sum(0)
    chosen = np.asarray(PENALTIES)[errors.argmin(0)]
    mean, cross = _projected(fitted.whole, targets)
    return mean + fitted.test_scores @ _weights(fitted.whole, cross, chosen)


def _projected(fold: Coordinates, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of targets, and what the rest of them has in common with the coordinates (R, M)."""
    mean = targets.mean(0, dtype=np.float64)
    return mean, fold.vectors.T @ _products(fold.features, fold.mean, targets, mean)


def _weights(fold: Coordinates, cross: np.ndarray, penalties: float | np.ndarray) -> np.ndarray:
    """Ridge weights (R, M) of coordinates, for one penalty or one a target."""
    largest = fold.values[0] if len(fold.values) else 1.0
    return cross / (fold.values[:, None] + largest * np.asarray(penalties))
