"""How many directions a map or a cloud of points fills."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from recon_jax.checks import as_finite_floats, is_concrete
from recon_jax.geometry.checks import as_features


@jax.jit
def _singular_values(array):
    if array.ndim == 1:
        return array
    return jnp.linalg.svd(array, compute_uv=False)


def _checked(name: str, array: ArrayLike) -> Array:
    array = as_finite_floats(name, array)
    if array.ndim == 0:
        raise ValueError(
            f"{name} must be singular values (R,) or matrices (..., P, D), got a scalar"
        )
    if array.ndim == 1 and is_concrete(array) and (least := np.asarray(array).min()) < 0:
        raise ValueError(
            f"{name} of one axis are singular values, which are not negative; the least is "
            f"{least:g}. Give a single row as a matrix: {name}[None]"
        )
    return array


@jax.jit
def _entropy_rank(shares):
    """Rank exp(H), H the entropy of weights along the last axis, whatever their sum."""
    shares = shares / shares.sum(-1, keepdims=True)
    # log of what is replaced would be infinite, and its gradient NaN even where it is not used.
    return jnp.exp(-jnp.sum(shares * jnp.log(jnp.where(shares > 0, shares, 1)), -1))


def effective_rank(values_or_matrix: Float[ArrayLike, "*shape"]) -> Float[Array, "..."]:
    """exp(-sum_i p_i log p_i), p_i = s_i^2 / sum_j s_j^2, of singular values s; 0 log 0 = 0.

    k for k equal singular values whatever the others are if zero, and in 1 .. min(P, D) always.
    Scale and rotations of either side do not matter. Nothing is centred: for a cloud of points
    take `embedding_rank`, or the mean counts as a direction.

    Args:
      values_or_matrix: singular values (R,), or matrices over the last two axes (..., P, D).

    Returns:
      A scalar, or one number a matrix (...). In float32 to about 1e-5 relative. Differentiable,
      also at equal and at zero singular values.

    Raises:
      ValueError: if empty or not finite, a singular value is negative, or a matrix is zero
        throughout (outside jit; NaN within).

    Source: Roy & Vetterli 2007 (The effective rank), with squared singular values.

    >>> round(float(effective_rank(jnp.array([2.0, 2.0, 2.0, 0.0]))), 3)
    3.0
    """
    array = _checked("values_or_matrix", values_or_matrix)
    values = _singular_values(array)
    largest = jax.lax.stop_gradient(values.max(-1, keepdims=True))
    if is_concrete(largest) and not bool((largest > 0).all()):
        raise ValueError(
            "values_or_matrix are zero throughout, which has no effective rank: a dead network, "
            "or a difference of equal things"
        )
    return _entropy_rank(jnp.square(values / largest))


def embedding_rank(features: Float[ArrayLike, "n d"]) -> Float[Array, ""]:
    """Effective rank of a cloud of points: `effective_rank` of the centred rows.

    From the eigenvalues of the smaller of the D x D and N x N scatters, so that squaring costs
    nothing here: weights p_i are eigenvalues. Absolute rounding of them, about eps p_1, adds up to
    some D eps log(1 / eps) in the entropy, 1e-3 of the rank for D = 512 in float32.

    Args:
      features: (N, D), one row a point.

    Returns:
      A number in 1 .. min(N - 1, D).

    Raises:
      ValueError: if `features` is not such a matrix, not finite, or constant (outside jit; NaN
        within).

    Source: Cosentino et al. 2022 (arXiv 2205.06926); the formula of Roy & Vetterli 2007.
    """
    return _embedding_rank(as_features(features))


@jax.jit
def _embedding_rank(features):
    rows = features - features.mean(0, keepdims=True)
    rows = rows / jax.lax.stop_gradient(jnp.abs(rows).max())
    if rows.shape[0] < rows.shape[1]:
        rows = rows.T
    scatter = jnp.matmul(rows.T, rows, precision="highest")
    return _entropy_rank(jnp.maximum(jnp.linalg.eigvalsh(scatter), 0))


def numerical_rank(matrix: Float[ArrayLike, "*shape"], rtol: float = 1e-2) -> Int[Array, "..."]:
    """Number of singular values above rtol times the largest; 0 for a zero matrix.

    Args:
      matrix: singular values (R,), or matrices over the last two axes (..., P, D).
      rtol: in [0, 1). Below about eps max(P, D), 1e-5 in float32, rounding is counted too.

    Returns:
      int32, a scalar or one number a matrix (...).

    Raises:
      ValueError: if empty or not finite, a singular value is negative, or rtol is out of range.

    Source: Cosentino et al. 2022 (arXiv 2205.06926), whose projectors it is applied to.
    """
    array = _checked("matrix", matrix)
    if is_concrete(rtol) and not 0 <= float(rtol) < 1:
        raise ValueError(f"rtol={rtol} must lie in [0, 1), relative to the largest singular value")
    values = _singular_values(array)
    return jnp.sum(values > rtol * values.max(-1, keepdims=True), -1, dtype=jnp.int32)
