"""How many dimensions the points of a cloud fill, seen from each point."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from recon_jax.checks import check_integer, is_concrete
from recon_jax.features import scaled_by_power_of_two
from recon_jax.geometry.checks import as_features
from recon_jax.geometry.tangents import nearest_others
from recon_jax.neighbors import nearest_neighbors

DIMENSION_METHODS = ("two_nn", "local_pca")

# Entries of one block of neighbourhoods, 4 MiB in float32.
_ENTRIES = 2**20


def intrinsic_dimension(
    features: Float[ArrayLike, "n d"],
    method: str = "two_nn",
    *,
    discard: float = 0.0,
    num_neighbors: int = 16,
    share: float = 0.95,
) -> Float[Array, ""]:
    """Dimension of the manifold that the points lie near, by one of two methods.

    two_nn: with r_1 and r_2 the distances of a point to its two nearest neighbours, x = log(r_2 /
    r_1) is exponential with rate d wherever the density is constant within r_2, so
    d = (N - 1) / sum x, the maximum-likelihood estimate without its bias of N / (N - 1). A share
    `discard` of the largest x, which non-uniform density and noise disturb most, is taken as
    censored: d = (n - 1) / (sum of the n smallest x + (N - n) times their largest). Its standard
    error is d / sqrt(n) if points are independent.

    local_pca: the number of principal components that hold `share` of the variance of a point and
    its M nearest neighbours, averaged over points. It cannot exceed min(M, D), and is low where M
    is not well above the dimension.

    Args:
      features: (N, D), one row a point.
      method: "two_nn" or "local_pca".
      discard: of two_nn, in [0, 1); 0.1 in the paper, whose fit is of another form.
      num_neighbors: M of local_pca, in 1 .. N - 1.
      share: of local_pca, in (0, 1].

    Returns:
      A number above 0. two_nn is infinite if all ratios are 1, as on a lattice.

    Raises:
      ValueError: if `features` is not such a matrix, not finite or constant, or, for two_nn, has
        fewer than three rows or duplicate ones (values: outside jit; there duplicates count as
        infinite x, which makes d 0 unless they are discarded); if the method is unknown or a number
        out of range.

    Source: two_nn: Facco, d'Errico, Rodriguez & Laio 2017 (arXiv 1803.06992); local_pca: Fukunaga
    & Olsen 1971.
    """
    if method not in DIMENSION_METHODS:
        raise ValueError(f"unknown method {method!r}; choose one of {', '.join(DIMENSION_METHODS)}")
    features = as_features(features)
    if method == "two_nn":
        return _two_nn(features, discard)
    return _local_pca(features, num_neighbors, share)


def _two_nn(features, discard):
    count = len(features)
    if not 0 <= discard < 1:
        raise ValueError(f"discard={discard} must lie in [0, 1), a share of the points")
    kept = count - int(discard * count)
    if kept < 2 or count < 3:
        raise ValueError(
            f"two_nn needs 3 points and 2 that are kept; of {count} points {kept} are, at "
            f"discard={discard}"
        )
    # Distance 0 to itself comes first, whichever of the duplicates is called so.
    features = scaled_by_power_of_two(features)
    distances = nearest_neighbors(features, features, 3, "euclidean")[0]
    if is_concrete(distances):
        twins = int((np.asarray(distances)[:, 1] == 0).sum())
        if twins:
            raise ValueError(
                f"{twins} of {count} points have a duplicate, whose distance 0 tells no dimension; "
                "keep one of each: np.unique(features, axis=0)"
            )
    return _censored_rate(jnp.log(distances[:, 2] / distances[:, 1]), kept)


@partial(jax.jit, static_argnames="kept")
def _censored_rate(x, kept):
    """Rate of an exponential distribution from the `kept` smallest values."""
    x = jnp.sort(x)
    censored = len(x) - kept
    total = x[:kept].sum() + (censored * x[kept - 1] if censored else 0)
    return (kept - 1) / total


def _local_pca(features, num_neighbors, share):
    count, size = features.shape
    check_integer(
        "num_neighbors",
        num_neighbors,
        1,
        f"each of the {count} points has {count - 1} others",
        high=count - 1,
    )
    if not 0 < share <= 1:
        raise ValueError(f"share={share} must lie in (0, 1], a share of the variance")
    index = nearest_others(features, jnp.arange(count), num_neighbors)
    block_size = max(1, min(count, _ENTRIES // ((num_neighbors + 1) * size)))
    return _mean_components(features, index, share, block_size)


@partial(jax.jit, static_argnames="block_size")
def _mean_components(features, index, share, block_size):
    everyone = jnp.concatenate([jnp.arange(len(index), dtype=index.dtype)[:, None], index], 1)

    def of_point(members):
        rows = features[members]
        rows = rows - rows[:1]
        rows = rows - rows.mean(0, keepdims=True)
        largest = jnp.abs(rows).max()
        rows = rows / jnp.where(largest == 0, 1, largest)
        if rows.shape[0] > rows.shape[1]:
            rows = rows.T
        gram = jnp.matmul(rows, rows.T, precision="highest")
        variances = jnp.maximum(jnp.linalg.eigvalsh(gram)[::-1], 0)
        held = jnp.cumsum(variances)
        # Rounding of the sum must not demand a component without variance; none is needed where
        # all neighbours are duplicates.
        enough = share * held[-1] * (1 - 16 * jnp.finfo(rows.dtype).eps)
        return jnp.sum(held < enough) + (largest > 0)

    components = jax.lax.map(of_point, everyone, batch_size=block_size)
    return components.astype(features.dtype).mean()
