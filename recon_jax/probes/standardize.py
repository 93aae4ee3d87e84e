"""Standardised features: zero mean and unit variance on the training set."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from recon_jax.features import check_features
from recon_jax.linalg import default_tolerance


class Standardizer(NamedTuple):
    """Train statistics by which features are standardised; a pytree.

    Attributes:
      mean: mean feature (D,).
      inverse_std: 1 / standard deviation (D,), 0 for a constant feature.
    """

    mean: Float[Array, " d"]
    inverse_std: Float[Array, " d"]


@jax.jit
def _fit(features):
    mean = features.mean(0)
    variance = jnp.square(features - mean[None, :]).mean(0)
    # What is left of a constant column after rounding is not variance, and must not be blown up.
    spread = features.max(0) - features.min(0)
    constant = spread <= default_tolerance(features.dtype) * jnp.abs(features).max(0)
    safe = jnp.where(constant, 1, variance)
    return Standardizer(mean, jnp.where(constant, 0, jax.lax.rsqrt(safe)))


def fit_standardizer(features: Float[ArrayLike, "n d"]) -> Standardizer:
    """Mean and inverse standard deviation of each feature, over the training set.

    std^2 = mean((x - mean)^2), divided by N. A feature that varies by no more than 16 eps of its
    size counts as constant.

    Args:
      features: training set (N, D), float32 or float64.

    Returns:
      The Standardizer.

    Raises:
      ValueError: if the features are empty, not floats, or not finite (values: outside jit).
    """
    features = jnp.asarray(features)
    check_features(features)
    return _fit(features)


def standardize(
    standardizer: Standardizer, features: Float[ArrayLike, "n d"]
) -> Float[Array, "n d"]:
    """Standardised features (x - mean) / std by train statistics; constant features become 0.

    Args:
      standardizer: of the training set.
      features: (N, D), of any set.

    Returns:
      (N, D). A feature that was constant in training is 0 everywhere, whatever it is here.

    Raises:
      ValueError: if the number of features differs from the training set's.
    """
    features = jnp.asarray(features)
    if features.shape[1] != standardizer.mean.shape[0]:
        raise ValueError(
            f"{features.shape[1]} features, but the training set had {standardizer.mean.shape[0]}"
        )
    return (features - standardizer.mean[None, :]) * standardizer.inverse_std[None, :]
