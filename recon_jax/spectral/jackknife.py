"""Spread of a closed form over the images: the delete-one-fold jackknife.

The closed forms have no seed; what is uncertain is which images the dataset holds. Statistics
merge, so leaving one fold out costs no second pass.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from recon_jax.spectral.moments import Moments, merge_moments


def union_moments(folds: Sequence[Moments]) -> Moments:
    """The statistics of all folds together.

    Args:
      folds: statistics of disjoint sets of images.

    Raises:
      ValueError: if there is no fold.
    """
    if not folds:
        raise ValueError("there is no fold to merge")
    return functools.reduce(merge_moments, folds)


def leave_one_out(folds: Sequence[Moments]) -> list[Moments]:
    """For each fold, the statistics of all others.

    Args:
      folds: statistics of disjoint sets of images, two or more.

    Raises:
      ValueError: for fewer than two folds.
    """
    if len(folds) < 2:
        raise ValueError(f"leaving one out needs at least 2 folds, got {len(folds)}")
    return [union_moments([*folds[:i], *folds[i + 1 :]]) for i in range(len(folds))]


def jackknife_error(estimates: Float[Array, "f ..."]) -> Float[Array, "..."]:
    """Standard error from F estimates, each with one fold left out.

    sqrt((F - 1) / F sum_f (x_f - mean)^2).

    Args:
      estimates: of any statistic, one a fold along the leading axis; F >= 2.

    Raises:
      ValueError: for fewer than two estimates.

    Source: Efron & Stein 1981; Busing, Meijer & van der Leeden 1999 for groups.
    """
    estimates = jnp.asarray(estimates)
    count = len(estimates)
    if count < 2:
        raise ValueError(f"the jackknife needs at least 2 estimates, got {count}")
    mean = estimates.mean(0, keepdims=True)
    return jnp.sqrt((count - 1) / count * jnp.sum((estimates - mean) ** 2, axis=0))
