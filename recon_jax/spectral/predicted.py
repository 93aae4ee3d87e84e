"""Which principal directions of the pixels a representation keeps: those it linearly predicts."""

from __future__ import annotations

import numpy as np
from jaxtyping import ArrayLike, Float


def predicted_directions(
    features: Float[ArrayLike, "n k"],
    scores: Float[ArrayLike, "n p"],
    test_features: Float[ArrayLike, "m k"],
    test_scores: Float[ArrayLike, "m p"],
    *,
    ridge: float = 0.0,
) -> Float[np.ndarray, " p"]:
    """Share of the variance of each direction that least squares predicts from the features.

    1 - sum (s - s_hat)^2 / sum (s - mean)^2 over test images for every direction, cut off at 0;
    s_hat = b + W f is fitted to the training images, the mean is theirs too. The first K principal
    components as features give 1 for the first K directions and 0 for the rest.

    Args:
      features: of training images (N, K), N > K + 1 for a fit that means something.
      scores: what is to be predicted, such as principal components of the pixels (N, P).
      test_features: of test images (M, K).
      test_scores: of test images (M, P).
      ridge: >= 0, the penalty of squared weights in units of the features' mean sum of squares
        about their means. Above 0 where a feature hardly varies in training and may be anything
        on a test image, such as a ReLU that hardly ever opens; 1e-3 leaves directions alone that
        have more than a thousandth of the mean variance.

    Returns:
      (P,) in [0, 1], float64; 0 for a direction without variance.

    Raises:
      ValueError: if the shapes do not belong together, there are fewer than K + 2 training
        images, or ridge < 0.
    """
    if not 0 <= ridge < np.inf:
        raise ValueError(f"ridge={ridge} must be a finite number >= 0; 0 is plain least squares")
    features, scores, test_features, test_scores = (
        np.asarray(array, np.float64) for array in (features, scores, test_features, test_scores)
    )
    count, size = features.shape
    if count < size + 2:
        raise ValueError(
            f"{count} training images cannot fit {size} features and an intercept; give "
            f"{size + 2} or more"
        )
    if (
        len(scores) != count
        or test_features.shape[1] != size
        or test_scores.shape != (len(test_features), scores.shape[1])
    ):
        raise ValueError(
            f"features {features.shape}, scores {scores.shape}, test features "
            f"{test_features.shape} and test scores {test_scores.shape} must be (N, K), (N, P), "
            "(M, K), (M, P)"
        )
    mean, target_mean = features.mean(0), scores.mean(0)
    centred, targets = features - mean[None, :], scores - target_mean[None, :]
    if ridge:
        # Rows that ask for weights of 0: well-conditioned, as the normal equations are not.
        penalty = np.sqrt(ridge * np.square(centred).sum(0).mean())
        centred = np.concatenate([centred, penalty * np.eye(size)])
        targets = np.concatenate([targets, np.zeros((size, scores.shape[1]))])
    weights = np.linalg.lstsq(centred, targets)[0]
    predicted = (test_features - mean[None, :]) @ weights + target_mean[None, :]
    left = np.square(test_scores - predicted).sum(0)
    total = np.square(test_scores - target_mean[None, :]).sum(0)
    share = 1 - np.divide(left, total, out=np.ones_like(left), where=total > 0)
    return np.clip(share, 0, 1)
