"""The optimal linear encoders: one generalised eigenproblem behind every closed form.

The rank-K encoder V of least loss spans the top-K solutions of A v = mu M v, where M is the second
moment of what the encoder sees and A collects the targets (Balestriero & LeCun 2024, arXiv
2402.11337). It is solved in the eigenbasis of the scatter S = U diag(s^2) U^T, because

* a corruption that commutes with S (isotropic noise does) is diagonal there, and is kept exactly
  diagonal, so that its encoders come out as PCA's to the last bit;
* the latents V^T X = W^T R^T are W in the orthonormal basis R of the row space of X, and the N x D
  matrix X is never needed.

Directions without variance, of the data or of M, are left out by a relative tolerance; shapes stay
static, so that everything runs under jit.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Bool, Float

from recon_jax.linalg import default_tolerance, eigh_descending
from recon_jax.spectral.corruptions import Corruption
from recon_jax.spectral.moments import Moments
from recon_jax.spectral.spectrum import Spectrum, eigendecompose


class Encoders(NamedTuple):
    """All optimal encoders at once: the first K columns are the optimum of rank K.

    Attributes:
      values: mu (D,), descending, >= 0: by how much each column lowers the summed loss.
      vectors: encoder V (D, D) in pixels, V^T M V = I on the columns that are not zero.
      latents: W (D, D), the latents V^T X in the orthonormal row-space basis R = S^{-1/2} U^T X;
        rows beyond the rank of the data are zero.
      commutes: True if M is diagonal in the principal components, which it then can only reorder.
    """

    values: Float[Array, " d"]
    vectors: Float[Array, "d d"]
    latents: Float[Array, "d d"]
    commutes: Bool[Array, ""]


def resolve_tolerance(tolerance: float | None, dtype: DTypeLike) -> float:
    """The given relative tolerance, or 16 eps of the dtype."""
    return default_tolerance(dtype) if tolerance is None else tolerance


def in_range(spectrum: Spectrum, tolerance: ArrayLike) -> Bool[Array, " d"]:
    """Which components carry variance: s_k^2 > tolerance x s_1^2."""
    return spectrum.values > tolerance * spectrum.values[0]


def whitening(spectrum: Spectrum, tolerance: ArrayLike) -> Float[Array, " d"]:
    """1 / s_k on the range of the data, 0 outside."""
    keep = in_range(spectrum, tolerance)
    return jnp.where(keep, jax.lax.rsqrt(jnp.where(keep, spectrum.values, 1)), 0)


def _snap_to_diagonal(matrix: Array, tolerance: ArrayLike) -> Array:
    """The diagonal alone, if nothing off it can be told from rounding; else the matrix."""
    # Eigenvectors are orthogonal to some 30 eps at D = 3072, growing about as sqrt(D).
    tolerance = tolerance * max(4.0, math.sqrt(len(matrix)) / 8)
    diagonal = jnp.diag(jnp.diag(matrix))
    off = jnp.abs(matrix - diagonal).max()
    return jnp.where(off <= tolerance * jnp.abs(matrix).max(), diagonal, matrix)


def _inverse_root(second: Array, tolerance: ArrayLike) -> tuple[Array, Array]:
    """R with R^T M R = I on the range of M, and which of its columns are not zero.

    Where M is safely definite its Cholesky factor serves, at an eighth of the price of eigenpairs.
    """
    chol = jnp.linalg.cholesky(second, symmetrize_input=False)
    pivots = jnp.diag(chol) ** 2
    # NaN pivots, from a matrix that is not definite, compare as False.
    definite = jnp.all(pivots > 1e3 * tolerance * jnp.max(pivots))

    def by_cholesky(second):
        identity = jnp.eye(len(second), dtype=second.dtype)
        root = jax.scipy.linalg.solve_triangular(chol, identity, lower=True, trans=1)
        return root, jnp.ones(len(second), bool)

    def by_eigenpairs(second):
        variances, axes = eigh_descending(second)
        live = variances > tolerance * variances[0]
        scale = jnp.where(live, jax.lax.rsqrt(jnp.where(live, variances, 1)), 0)
        return axes * scale[None, :], live

    return jax.lax.cond(definite, by_cholesky, by_eigenpairs, second)


def _solve(targets: Array, whiten: Array, live: Array) -> tuple[Array, Array]:
    """Top right-singular directions of `targets` after whitening; columns not `live` come last."""
    gram = targets.T @ targets - jnp.diag((~live).astype(targets.dtype))
    values, rotation = eigh_descending(gram)
    return jnp.maximum(values, 0), whiten @ rotation


def _rotated_gain(corruption: Corruption, basis: Array, tolerance: float) -> Array:
    """U^T G^T U; exactly a multiple of the identity where G is one, as for masks and noise."""
    gained = corruption.gain(basis.T)
    factor = jnp.vdot(gained, basis.T) / len(basis)
    is_scalar = jnp.abs(gained - factor * basis.T).max() <= tolerance * jnp.abs(gained).max()
    identity = jnp.eye(len(basis), dtype=basis.dtype)
    return jax.lax.cond(is_scalar, lambda: factor * identity, lambda: gained @ basis)


def _rotated_second(moments: Moments, corruption: Corruption, basis: Array, tolerance: float):
    """U^T M2 U; exactly diagonal where it is so up to rounding."""
    second = corruption.second_moment(moments.scatter, moments.count)
    return _snap_to_diagonal(basis.T @ second @ basis, tolerance)


def _is_diagonal(matrix: Array) -> Array:
    return jnp.count_nonzero(matrix - jnp.diag(jnp.diag(matrix))) == 0


def _reorder(targets: Array, second: Array, tolerance: ArrayLike) -> tuple[Array, Array]:
    """`_solve` where targets and M are diagonal, given their diagonals: no eigenproblem is left."""
    live = second > tolerance * second.max()
    scale = jnp.where(live, jax.lax.rsqrt(jnp.where(live, second, 1)), 0)
    values = (targets * scale) ** 2
    order = jnp.argsort(jnp.where(live, -values, 1), stable=True)
    return values[order], jnp.diag(scale)[:, order]


@jax.jit
def _denoising(spectrum, gain, second, cross, weight, tolerance):
    with jax.default_matmul_precision("highest"):
        live_data = in_range(spectrum, tolerance)
        spread = jnp.where(live_data, spectrum.values, 0)
        commutes, is_diagonal = _is_diagonal(second), _is_diagonal(gain)

        def by_eigenproblem():
            whiten, live = _inverse_root(second, tolerance)
            labels = jnp.sqrt(weight) * (spectrum.vectors.T @ cross).T
            targets = jnp.concatenate([spread[:, None] * gain, labels @ gain]) @ whiten
            return _solve(targets, whiten, live)

        values, rotated = jax.lax.cond(
            commutes & is_diagonal & (weight == 0),
            lambda: _reorder(spread * jnp.diag(gain), jnp.diag(second), tolerance),
            by_eigenproblem,
        )
        # A linear map that loses directions leaves encoders that explain nothing: where noise was
        # added they could point anywhere, and would read what the map had removed.
        explains = is_diagonal | (values > tolerance * values[0])
        rotated = jnp.where(explains[None, :], rotated, 0)
        latents = jnp.sqrt(spread)[:, None] * rotated
        return Encoders(values, spectrum.vectors @ rotated, latents, commutes)


def denoising_encoders(
    moments: Moments,
    corruption: Corruption,
    *,
    supervision_weight: ArrayLike = 0.0,
    spectrum: Spectrum | None = None,
    tolerance: float | None = None,
) -> Encoders:
    """Encoders that are optimal for denoising, for every rank at once.

    min over V, Z, W of E ||Z^T V^T T(X) - X||^2 + w ||W^T V^T T(X) - Y||^2 is solved by the top
    solutions of G (S S + w X Y^T Y X^T) G^T v = mu M2 v.

    Args:
      moments: statistics of the images.
      corruption: T, with its gain G and second moment M2.
      supervision_weight: w >= 0.
      spectrum: of the moments, if already at hand; saves one eigendecomposition.
      tolerance: relative size below which variance counts as zero; 16 eps if None.

    Returns:
      The Encoders.

    Raises:
      ValueError: if the images do not vary or statistics are not finite (checked outside jit).

    Source: Balestriero & LeCun 2024, denoising theorem; with supervision derived.
    """
    tolerance = resolve_tolerance(tolerance, moments.scatter.dtype)
    spectrum = eigendecompose(moments) if spectrum is None else spectrum
    with jax.default_matmul_precision("highest"):
        gain = _rotated_gain(corruption, spectrum.vectors, tolerance)
        second = _rotated_second(moments, corruption, spectrum.vectors, tolerance)
    weight = jnp.asarray(supervision_weight, moments.scatter.dtype)
    return _denoising(spectrum, gain, second, moments.cross, weight, tolerance)


@jax.jit
def _joint(spectrum, cross, weight, tolerance):
    with jax.default_matmul_precision("highest"):
        live = in_range(spectrum, tolerance)
        inverse_root = whitening(spectrum, tolerance)
        labels = inverse_root[:, None] * (spectrum.vectors.T @ cross)
        spread = jnp.where(live, spectrum.values, 0)
        targets = jnp.concatenate([jnp.diag(jnp.sqrt(weight * spread)), labels.T])
        values, latents = _solve(targets, jnp.diag(live.astype(cross.dtype)), live)
        vectors = spectrum.vectors @ (inverse_root[:, None] * latents)
        return Encoders(values, vectors, latents, jnp.asarray(True))


def joint_encoders(
    moments: Moments,
    reconstruction_weight: ArrayLike,
    *,
    spectrum: Spectrum | None = None,
    tolerance: float | None = None,
) -> Encoders:
    """Encoders that are optimal for supervision plus reconstruction, for every rank at once.

    min over V, W, Z of ||W^T V^T X - Y||^2 + w ||Z^T V^T X - X||^2 is solved by the top solutions
    of (X Y^T Y X^T + w S S) v = mu S v, which in the whitened eigenbasis is a diagonal plus rank C.

    Args:
      moments: statistics of the images.
      reconstruction_weight: w >= 0; w -> infinity is PCA, w = 0 reduced-rank regression, where only
        the first C - 1 columns matter.
      spectrum: of the moments, if already at hand.
      tolerance: relative size below which variance counts as zero; 16 eps if None.

    Returns:
      The Encoders.

    Raises:
      ValueError: if the images do not vary or statistics are not finite (checked outside jit).

    Source: Balestriero & LeCun 2024, joint optimum.
    """
    tolerance = resolve_tolerance(tolerance, moments.scatter.dtype)
    spectrum = eigendecompose(moments) if spectrum is None else spectrum
    weight = jnp.asarray(reconstruction_weight, moments.scatter.dtype)
    return _joint(spectrum, moments.cross, weight, tolerance)
