"""Losses of two views without negatives: dimensions are kept apart instead of images."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Shaped

from recon_jax.checks import is_concrete
from recon_jax.losses.view_pairs import ViewPairs, view_pairs

# Below it a variance is that of a constant, whose correlations are 0.
_LEAST_VARIANCE = 1e-12


def _check_weights(**weights: float) -> None:
    for name, weight in weights.items():
        if not 0 <= weight < math.inf:
            raise ValueError(f"{name}={weight} must be a finite number >= 0; 0 leaves the term out")


def _over_devices(total: Array, axis_name: str | None) -> Array:
    return total if axis_name is None else jax.lax.psum(total, axis_name)


def _centred(view: Array, pairs: ViewPairs, count: Array, axis_name: str | None) -> Array:
    """The view less its mean over the pairs that count, and 0 in those that do not."""
    mean = _over_devices(view.sum(0), axis_name) / jnp.maximum(count, 1)
    return jnp.where(pairs.counts[:, None] > 0, view - mean[None, :], 0)


def _products(a: Array, b: Array, axis_name: str | None) -> Float[Array, "d d"]:
    """sum_n a_ni b_nj over the pairs of all devices."""
    return _over_devices(jnp.matmul(a.T, b, precision=jax.lax.Precision.HIGHEST), axis_name)


def _off_diagonal(matrix: Array) -> Float[Array, ""]:
    """Sum of the squares off the diagonal."""
    return jnp.square(jnp.where(jnp.eye(len(matrix), dtype=bool), 0, matrix)).sum()


def vicreg(
    view_a: Float[ArrayLike, "n d"],
    view_b: Float[ArrayLike, "m k"],
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
    mask: Shaped[ArrayLike, "..."] | None = None,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Variance-invariance-covariance regularisation, with statistics over the batch of all devices.

    L = invariance mean_nd (a_nd - b_nd)^2
      + variance sum_views mean_d max(0, 1 - sqrt(Var_d + 1e-4))
      + covariance sum_views (1 / D) sum_{d != e} Cov_de^2,
    Var and Cov over N - 1. Like the released code, and unlike equation 5 of the paper, the first
    term is a mean over dimensions too; like equation 6, and unlike the released code, the second
    one is the sum of both views, not their mean.

    Args:
      view_a: embeddings (B, D) of one view of each image.
      view_b: those of the other view, of the same shape.
      invariance: weight of the first term, >= 0.
      variance: of the second.
      covariance: of the third.
      mask: False or 0 for padding (B,); None counts all.
      axis_name: mapped axis over whose members the batch is spread; each returns the same number.

    Returns:
      A scalar.

    Raises:
      ValueError: if a weight is out of range, the shapes differ or there are fewer than two pairs
        over all devices; outside jit, if fewer than two pairs count or an embedding that counts is
        not finite.

    Source: Bardes et al. 2022 (arXiv 2105.04906), section 4 and released code.
    """
    _check_weights(invariance=invariance, variance=variance, covariance=covariance)
    pairs = view_pairs(view_a, view_b, mask, axis_name)
    count, size = _over_devices(pairs.counts.sum(), axis_name), pairs.view_a.shape[1]
    apart = _over_devices(jnp.square(pairs.view_a - pairs.view_b).sum(), axis_name)
    loss = invariance * apart / (jnp.maximum(count, 1) * size)
    for view in (pairs.view_a, pairs.view_b):
        centred = _centred(view, pairs, count, axis_name)
        moments = _products(centred, centred, axis_name) / jnp.maximum(count - 1, 1)
        deviations = jnp.sqrt(jnp.diagonal(moments) + 1e-4)
        loss += variance * jax.nn.relu(1 - deviations).mean()
        loss += covariance * _off_diagonal(moments) / size
    return loss


def _check_varies(pairs: ViewPairs, axis_name: str | None) -> None:
    if axis_name is not None or not is_concrete(*pairs):
        return
    counts = np.asarray(pairs.counts) > 0
    for name in ("view_a", "view_b"):
        spread = np.ptp(np.asarray(getattr(pairs, name))[counts], axis=0)
        constant = int((spread == 0).sum())
        if constant:
            raise ValueError(
                f"{constant} of {len(spread)} dimensions of {name} are the same for all images and "
                "have no correlation; leave them out, or look at the network that made them"
            )


def barlow_twins(
    view_a: Float[ArrayLike, "n d"],
    view_b: Float[ArrayLike, "m k"],
    *,
    redundancy: float = 0.005,
    mask: Shaped[ArrayLike, "..."] | None = None,
    axis_name: str | None = None,
) -> Float[Array, ""]:
    """Distance of the cross-correlation of two views from the identity, over all devices' batch.

    L = sum_d (1 - C_dd)^2 + redundancy sum_{d != e} C_de^2, C_de the correlation over images of
    dimension d of one view with dimension e of the other. A dimension whose variance is below 1e-12
    has correlation 0 or nearly so. The paper's weight is kept for every D; its network had 8,192
    dimensions.

    Args:
      view_a: embeddings (B, D) of one view of each image.
      view_b: those of the other view, of the same shape.
      redundancy: weight of the second term, >= 0.
      mask: False or 0 for padding (B,); None counts all.
      axis_name: mapped axis over whose members the batch is spread; each returns the same number.

    Returns:
      A scalar.

    Raises:
      ValueError: if the weight is out of range, the shapes differ or there are fewer than two pairs
        over all devices; outside jit, if fewer than two pairs count, an embedding that counts is
        not finite or a dimension is the same for all images.

    Source: Zbontar et al. 2021 (arXiv 2103.03230), equations 1 and 2.
    """
    _check_weights(redundancy=redundancy)
    pairs = view_pairs(view_a, view_b, mask, axis_name)
    _check_varies(pairs, axis_name)
    count = _over_devices(pairs.counts.sum(), axis_name)
    centred = [_centred(view, pairs, count, axis_name) for view in pairs[:2]]
    scales = []
    for view in centred:
        moments = _over_devices(jnp.square(view).sum(0), axis_name) / jnp.maximum(count, 1)
        scales.append(jnp.sqrt(jnp.maximum(moments, _LEAST_VARIANCE)))
    products = _products(*centred, axis_name) / jnp.maximum(count, 1)
    correlations = products / scales[0][:, None] / scales[1][None, :]
    on_diagonal = jnp.square(1 - jnp.diagonal(correlations)).sum()
    return on_diagonal + redundancy * _off_diagonal(correlations)
