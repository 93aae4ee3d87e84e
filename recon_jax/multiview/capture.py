"""Which features a network has captured, and whether its kernels hold one feature each.

Source: Pan et al. 2023 (arXiv 2206.03826); Allen-Zhu & Li 2020 (arXiv 2012.09816) for which view
wins; thresholds chosen here, the expected coverage derived here.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from recon_jax.checks import check_integer, check_numbers
from recon_jax.multiview.checks import as_floats


def feature_correlation(
    kernels: Float[ArrayLike, "r d"], features: Float[ArrayLike, "f d"]
) -> Float[Array, "r f"]:
    """<w_r, v_j> of every kernel with every feature.

    Args:
      kernels: rows (R, d).
      features: orthonormal rows (2 k, d); 2 c and 2 c + 1 are of class c.

    Raises:
      ValueError: if an array is no finite matrix (checked outside jit), or the widths differ.
    """
    kernels = as_floats("kernels", kernels, 2, "number of kernels, dim")
    features = as_floats("features", features, 2, "number of features, dim")
    if kernels.shape[1] != features.shape[1]:
        raise ValueError(
            f"kernels have {kernels.shape[1]} entries and features {features.shape[1]}; both are "
            "rows of the dimension of a patch"
        )
    dtype = jnp.promote_types(kernels.dtype, features.dtype)
    return jnp.matmul(kernels.astype(dtype), features.T.astype(dtype), precision="highest")


def captured(correlations: Float[ArrayLike, "r f"], fraction: ArrayLike = 0.3) -> Bool[Array, " f"]:
    """Whether the best kernel of a feature reaches a fraction of what winning features reach.

    Lambda_j = max_r <w_r, v_j>^+ >= fraction * median over classes of max(Lambda_2c, Lambda_2c+1).

    The rule is relative: kernels that only shrink can fulfil it. Read it together with
    `norm_growth` > 1 or `aligned`.

    Args:
      correlations: (R, 2 k), from `feature_correlation`.
      fraction: in [0, 1].

    Returns:
      (2 k,); all False if the median is 0, that is if most classes have no live kernel.

    Raises:
      ValueError: if the number of features is odd, or the fraction is out of range.

    Source: threshold chosen here; Lambda of Allen-Zhu & Li 2020 (arXiv 2012.09816).
    """
    correlations = _check(correlations, fraction)
    reference = _reference(correlations)
    return (_best(correlations) >= fraction * reference) & (reference > 0)


def kernel_purity(
    correlations: Float[ArrayLike, "r f"], fraction: ArrayLike = 0.3
) -> Float[Array, ""]:
    """Share of live kernels whose second-largest correlation is <= fraction of the largest.

    A kernel is live if its largest correlation reaches the threshold of `captured`.

    Args:
      correlations: (R, 2 k), from `feature_correlation`.
      fraction: in [0, 1], of both rules.

    Returns:
      In [0, 1]; NaN if no kernel is live.

    Raises:
      ValueError: if the number of features is odd, or the fraction is out of range.

    Source: the claim, Pan et al. 2023 (arXiv 2206.03826); thresholds chosen here.
    """
    correlations = _check(correlations, fraction)
    reference = _reference(correlations)
    ordered = jnp.sort(correlations, axis=1)
    largest, second = ordered[:, -1], ordered[:, -2]
    live = (largest >= fraction * reference) & (largest > 0) & (reference > 0)
    pure = live & (second <= fraction * largest)
    count = live.sum(dtype=correlations.dtype)
    share = pure.sum(dtype=correlations.dtype) / jnp.maximum(count, 1)
    return jnp.where(count > 0, share, jnp.nan)


def aligned(
    kernels: Float[ArrayLike, "r d"], features: Float[ArrayLike, "f d"], cosine: ArrayLike = 0.6
) -> Bool[Array, " f"]:
    """Whether a feature has a kernel at a cosine of at least `cosine`, whatever the kernels' norm.

    Args:
      kernels: rows (R, d); zero rows are at cosine 0 of everything.
      features: orthonormal rows (2 k, d).
      cosine: in [0, 1].

    Returns:
      (2 k,).

    Raises:
      ValueError: if the shapes differ or the cosine is out of range.
    """
    check_numbers("cosine", cosine, "[0, 1]", "1 is a kernel along the feature")
    correlations = feature_correlation(kernels, features)
    norms = jnp.linalg.norm(jnp.asarray(kernels, correlations.dtype), axis=1)[:, None]
    cosines = jnp.where(norms > 0, correlations / jnp.where(norms > 0, norms, 1), 0)
    return cosines.max(0) >= cosine


def norm_growth(
    initial: Float[ArrayLike, "r d"], kernels: Float[ArrayLike, "r d"]
) -> Float[Array, ""]:
    """Median over kernels of |w_r| over |w_r| at the start: above 1 if most kernels have grown.

    Kernels that started at zero do not count; NaN if all did. Not a sum over kernels, because a few
    that follow both features of a class grow below the window of `teacher_scale_bounds` already.

    Args:
      initial: (R, d) at the start.
      kernels: (R, d).

    Raises:
      ValueError: if the shapes differ.
    """
    initial = as_floats("initial", initial, 2, "number of kernels, dim")
    kernels = as_floats("kernels", kernels, 2, "number of kernels, dim")
    if initial.shape != kernels.shape:
        raise ValueError(f"kernels of shape {kernels.shape} did not start as {initial.shape}")
    start, end = (jnp.linalg.norm(rows, axis=1) for rows in (initial, kernels))
    # A zero start is reported, not divided by.
    ratios = jnp.where(start > 0, end / jnp.where(start > 0, start, 1), jnp.nan)
    return jnp.nanmedian(ratios)


def winning_views(correlations: Float[ArrayLike, "r f"]) -> Int[Array, " c"]:
    """Which view of each class has the kernel of the largest correlation: 0 or 1, 0 if equal.

    Only kernels of the class count, rows c m .. (c + 1) m - 1 of R = k m, as in `block_head`:
    at the start, and after supervised training.

    Args:
      correlations: (R, 2 k), from `feature_correlation`.

    Raises:
      ValueError: if the number of features is odd, or k does not divide R.

    Source: Allen-Zhu & Li 2020 (arXiv 2012.09816), section 4.
    """
    correlations = _check(correlations, 0.0)
    num_kernels, num_classes = len(correlations), correlations.shape[1] // 2
    if num_kernels % num_classes:
        raise ValueError(
            f"{num_kernels} kernels are not shared evenly by {num_classes} classes; every class "
            "has as many rows of its own"
        )
    blocks = correlations.reshape(num_classes, -1, num_classes, 2)
    own = jnp.arange(num_classes)
    best = blocks[own, :, own].max(1)
    return (best[:, 1] > best[:, 0]).astype(jnp.int32)


def expected_coverage(num_features: int, num_kernels: int) -> float:
    """1 - (1 - 1/F)^R: expected share of F features if R kernels lock on one each at random.

    Args:
      num_features: F = 2 k, at least 1.
      num_kernels: R, at least 0.

    Raises:
      ValueError: if a number is out of range.

    Source: derived here (coupon collecting), for Pan et al. 2023 (arXiv 2206.03826).

    >>> round(expected_coverage(num_features=10, num_kernels=50), 3)
    0.995
    """
    check_integer("num_features", num_features, 1, "features there are to capture")
    check_integer("num_kernels", num_kernels, 0, "kernels that lock on one feature each")
    return 1 - (1 - 1 / num_features) ** num_kernels


def _check(correlations, fraction):
    check_numbers("fraction", fraction, "[0, 1]", "of the winning correlation")
    correlations = as_floats("correlations", correlations, 2, "number of kernels, 2 k")
    if correlations.shape[1] % 2:
        raise ValueError(
            f"correlations are with {correlations.shape[1]} features; every class has two, 2 c and "
            "2 c + 1"
        )
    return correlations


def _best(correlations: Array) -> Array:
    return jnp.maximum(correlations.max(0), 0)


def _reference(correlations: Array) -> Array:
    return jnp.median(_best(correlations).reshape(-1, 2).max(1))
