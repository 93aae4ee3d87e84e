"""Symmetric eigenproblems with a fixed order and sign, and angles between subspaces.

LAPACK returns eigenvalues ascending and eigenvectors with an arbitrary sign; both differ from what
representation learning prints. Everything here is descending, and every eigenvector's entry of
largest magnitude is positive, so that two runs (and two machines) can be compared by eye.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from recon_jax.checks import is_concrete


def default_tolerance(dtype: DTypeLike) -> float:
    """Relative size below which a symmetric eigenvalue cannot be told from zero: 16 eps.

    The residual of LAPACK's `syevd` on image scatters of up to 3,072 pixels is 2 to 4 eps of the
    largest eigenvalue in float32 and float64, whatever the dimension; 16 leaves room for the
    rounding of the scatter itself.
    """
    return 16 * float(jnp.finfo(dtype).eps)


def _require_square(name: str, a: Array) -> None:
    if a.ndim != 2 or a.shape[0] != a.shape[1]:
        raise ValueError(f"{name} must be a square matrix, got shape {a.shape}")


def _require_finite(name: str, a: Array) -> None:
    # eigh and Cholesky return NaN without a word, so this is the last place to speak.
    if not is_concrete(a):
        return
    # Values that a jitted function closes over are concrete, but plain operations on them are not.
    with jax.ensure_compile_time_eval():
        bad = int(jnp.size(a) - jnp.isfinite(a).sum())
    if bad:
        raise ValueError(f"{name} holds {bad} NaN or infinite entries out of {a.size}")


def fix_signs(vectors: Float[Array, "d k"]) -> Float[Array, "d k"]:
    """Columns (D, K) with the entry of largest magnitude made positive; zero columns stay."""
    largest = jnp.argmax(jnp.abs(vectors), axis=0)
    signs = jnp.sign(vectors[largest, jnp.arange(vectors.shape[1])])
    return vectors * jnp.where(signs == 0, 1, signs)[None, :]


@jax.jit
def _eigh_descending(a):
    values, vectors = jnp.linalg.eigh(a, symmetrize_input=True)
    return values[::-1], fix_signs(vectors[:, ::-1])


def eigh_descending(a: Float[Array, "d d"]) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
    """Eigenpairs of a symmetric matrix, largest first, with a fixed sign.

    a = V diag(values) V^T with V^T V = I. The input is symmetrised as (a + a^T) / 2.

    Args:
      a: symmetric matrix (D, D), float32 or float64.

    Returns:
      values (D,), descending, and vectors (D, D), one a column, whose entry of largest magnitude is
      positive.

    Raises:
      ValueError: if `a` is not square, or holds NaN or infinite entries (checked outside jit).
    """
    a = jnp.asarray(a)
    _require_square("a", a)
    _require_finite("a", a)
    return _eigh_descending(a)


@jax.jit
def _eigh_generalized(a, b):
    chol = jnp.linalg.cholesky(b, symmetrize_input=True)
    left = jax.scipy.linalg.solve_triangular(chol, a, lower=True)
    reduced = jax.scipy.linalg.solve_triangular(chol, left.T, lower=True)
    values, vectors = jnp.linalg.eigh(reduced, symmetrize_input=True)
    vectors = jax.scipy.linalg.solve_triangular(chol, vectors[:, ::-1], lower=True, trans=1)
    return values[::-1], fix_signs(vectors), jnp.isfinite(chol).all()


def eigh_generalized(
    a: Float[Array, "d d"], b: Float[Array, "d d"]
) -> tuple[Float[Array, " d"], Float[Array, "d d"]]:
    """Eigenpairs of the symmetric-definite pencil a v = mu b v, largest first, with a fixed sign.

    Cholesky reduction b = L L^T, then eigh(L^-1 a L^-T), then v = L^-T p.

    Args:
      a: symmetric matrix (D, D).
      b: symmetric positive definite matrix (D, D).

    Returns:
      values (D,), descending, and vectors (D, D) with v^T b v = I.

    Raises:
      ValueError: if the shapes differ or are not square, an entry is not finite, or `b` is not
        positive definite (checked outside jit; inside, the result is NaN).
    """
    a, b = jnp.asarray(a), jnp.asarray(b)
    _require_square("a", a)
    _require_square("b", b)
    if a.shape != b.shape:
        raise ValueError(f"a and b must have the same shape, got {a.shape} and {b.shape}")
    _require_finite("a", a)
    _require_finite("b", b)
    values, vectors, definite = _eigh_generalized(a, b)
    if is_concrete(definite) and not bool(definite):
        smallest, largest = (float(v) for v in jnp.linalg.eigvalsh(b)[jnp.array([0, -1])])
        raise ValueError(
            f"b must be positive definite; its eigenvalues run from {smallest:.3g} to "
            f"{largest:.3g}. Restrict both matrices to the range of b first"
        )
    return values, vectors


@jax.jit
def _principal_angles(u, v):
    # Cosines lose half of the digits of small angles and sines those of angles near pi/2, so each
    # angle is read from whichever is accurate there (Bjorck & Golub 1973).
    qu, qv = jnp.linalg.qr(u)[0], jnp.linalg.qr(v)[0]
    if qu.shape[1] < qv.shape[1]:
        qu, qv = qv, qu
    inner = qu.T @ qv
    cosines = jnp.clip(jnp.linalg.svd(inner, compute_uv=False), 0, 1)
    sines = jnp.clip(jnp.linalg.svd(qv - qu @ inner, compute_uv=False)[::-1], 0, 1)
    return jnp.where(cosines**2 < 0.5, jnp.arccos(cosines), jnp.arcsin(sines))


def principal_angles(
    u: Float[Array, "d k"],
    v: Float[Array, "d l"],
    metric: Float[Array, "d d"] | None = None,
) -> Float[Array, " m"]:
    """Principal angles between span(u) and span(v) in radians, ascending.

    cos(theta_i) are the singular values of Q_u^T Q_v for orthonormal bases Q_u, Q_v. With a metric
    B, orthonormal means Q^T B Q = I: with B = X X^T these are the angles between the two row spaces
    of latents u^T X and v^T X.

    Args:
      u: basis (D, K) with linearly independent columns.
      v: basis (D, L) with linearly independent columns.
      metric: symmetric positive definite matrix (D, D); None is the identity.

    Returns:
      min(K, L) angles in [0, pi/2].

    Raises:
      ValueError: if the ambient dimensions differ, more columns than rows are given, an entry is
        not finite, or the metric is not positive definite (checked outside jit).
    """
    u, v = jnp.asarray(u), jnp.asarray(v)
    for name, basis in (("u", u), ("v", v)):
        if basis.ndim != 2 or not 1 <= basis.shape[1] <= basis.shape[0]:
            raise ValueError(f"{name} must be (D, K) with 1 <= K <= D, got shape {basis.shape}")
        _require_finite(name, basis)
    if u.shape[0] != v.shape[0]:
        raise ValueError(f"u and v live in different spaces: {u.shape[0]} and {v.shape[0]} rows")
    if metric is not None:
        metric = jnp.asarray(metric)
        if metric.shape != (u.shape[0], u.shape[0]):
            raise ValueError(f"metric must be {(u.shape[0],) * 2}, got {metric.shape}")
        _require_finite("metric", metric)
        chol = jnp.linalg.cholesky(metric)
        if is_concrete(chol) and not bool(jnp.isfinite(chol).all()):
            raise ValueError(
                "metric must be positive definite; restrict u and v to its range first"
            )
        u, v = chol.T @ u, chol.T @ v
    return _principal_angles(u, v)
