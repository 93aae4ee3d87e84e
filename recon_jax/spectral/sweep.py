"""Alignment over many mask ratios and patch sizes, at a fraction of the price of one by one.

For every mask of one patch size the second moment is a combination of two fixed matrices,
M2 = c_S S + c_B (S o B): only the coefficients change with the ratio. In a basis that diagonalises
both at once the metric of the eigenproblem is diagonal for every ratio, and one symmetric
eigenproblem a ratio remains. Where only K <= max_rank latents are asked for, the problem is first
projected on a reduced basis: the principal components, one step of subspace iteration from them
towards the encoders at a low ratio, and three towards those at a high one. Their span holds the
leading encoders of all ratios to about 1e-4.
"""

from __future__ import annotations

import functools
import itertools
import math
import threading
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float

from recon_jax import parallel
from recon_jax.linalg import eigh_descending
from recon_jax.spectral.alignment import (
    alignment_curve,
    energy_by_rank,
    require_classes,
    whitened_labels,
)
from recon_jax.spectral.encoders import resolve_tolerance
from recon_jax.spectral.masks import num_kept, patch_index, within_patches
from recon_jax.spectral.moments import Moments
from recon_jax.spectral.spectrum import Spectrum, eigendecompose

# Columns beyond max_rank. The spectrum decays slowly enough that the last encoders asked for mix
# with those just behind them, most of all where the iteration has to turn them far.
_SPARE, _SPARE_TURNED = 16, 160


class _Family(NamedTuple):
    """The pencils of one patch size in a basis E with E^T (S o B) E = I, E^T S E = diag(shares).

    Attributes:
      shares: (M,), clean variance for each unit of within-patch variance.
      targets: E^T S S E (M, M).
      labels: whitened labels along the orthonormal latents of E (M, C).
      live: (M,), False where a direction never varies.
    """

    shares: Array
    targets: Array
    labels: Array
    live: Array


def _inverse_root(patches: Array, tolerance: ArrayLike, largest: Array) -> Array:
    """R with R^T A R = I on the range of A, for one symmetric matrix or a stack of them."""
    variances, axes = jnp.linalg.eigh(patches)
    live = variances > tolerance * largest
    scale = jnp.where(live, jax.lax.rsqrt(jnp.where(live, variances, 1)), 0)
    return axes * scale[..., None, :]


class _Projected(NamedTuple):
    """Statistics in directions R in which S o B is the identity: R^T S R, R^T S S R, R^T X Y^T."""

    scatter: Array
    squared: Array
    cross: Array


@functools.partial(jax.jit, static_argnames="num_patches")
def _on_pixels(scatter, squared, cross, index, num_patches, tolerance):
    """All pixels, patch by patch: S o B is block diagonal, and so is its inverse root."""
    order = jnp.argsort(index, stable=True).reshape(num_patches, -1)
    blocks = scatter[order[:, :, None], order[:, None, :]]
    roots = _inverse_root(blocks, tolerance, jnp.diag(scatter).max())

    def on_rows(matrix):
        rows = jnp.einsum("pij,pic->pjc", roots, matrix[order])
        return rows.reshape(matrix.shape)

    return _Projected(on_rows(on_rows(scatter).T), on_rows(on_rows(squared).T), on_rows(cross))


@jax.jit
def _on_basis(scatter, patches, cross, basis, tolerance):
    """The span of an orthonormal basis Q (D, M)."""
    root = _inverse_root(basis.T @ (patches @ basis), tolerance, jnp.diag(patches).max())
    directions = basis @ root
    image = scatter @ directions
    return _Projected(directions.T @ image, image.T @ image, directions.T @ cross)


@jax.jit
def _family(projected, weights, tolerance):
    """Diagonalise S too."""
    shares, rotation = eigh_descending(projected.scatter)
    live = shares > tolerance * shares[0]
    inverse_root = jnp.where(live, jax.lax.rsqrt(jnp.where(live, shares, 1)), 0)
    return _Family(
        shares=jnp.where(live, shares, 0),
        targets=rotation.T @ (projected.squared @ rotation),
        labels=inverse_root[:, None] * (rotation.T @ projected.cross) * weights[None, :],
        live=live,
    )


@functools.partial(jax.jit, static_argnames=("size", "dtype"))
def _curve(family, total, coefficients, size, dtype):
    """Alignment at one ratio, up to rank `size`: one symmetric eigenproblem, in `dtype`."""
    metric = coefficients[0] * family.shares + coefficients[1]
    scale = jnp.where(family.live, jax.lax.rsqrt(metric), 0)
    # Scaled to a trace of -1: negated for descending order, and so that dead directions, at +1,
    # come last in either precision.
    scale_targets = (scale / jnp.sqrt(jnp.sum(scale**2 * jnp.diag(family.targets)))).astype(dtype)
    dead = jnp.diag((~family.live).astype(dtype))
    scaled = -scale_targets[:, None] * family.targets.astype(dtype) * scale_targets[None, :] + dead
    rotation = jnp.linalg.eigh(scaled, symmetrize_input=False)[1][:, :size]
    latents = (scale * jnp.sqrt(family.shares)).astype(dtype)[:, None] * rotation
    live = jnp.arange(size) < family.live.sum()
    latents = jnp.where(live[None, :], latents, 0)
    energy = energy_by_rank(latents, live, family.labels.astype(dtype))
    return jnp.sqrt(jnp.minimum(jnp.cumsum(energy) / total.astype(dtype), 1))


@functools.partial(jax.jit, static_argnames="steps")
def _towards(scatter, patches, vectors, coefficients, steps):
    """Steps of subspace iteration with M^-1 S S from principal components (float32, unit columns).

    Turns their span towards the leading encoders at one ratio, without an eigenproblem.
    """
    scatter, patches = (a.astype(jnp.float32) / jnp.trace(scatter) for a in (scatter, patches))
    second = coefficients[0] * scatter + coefficients[1] * patches
    # Only the span is used, and the projected problem is solved exactly: a floor does no harm.
    floor = 1e-6 * jnp.trace(second) / len(second)
    chol = jnp.linalg.cholesky(second + floor * jnp.eye(len(second), dtype=second.dtype))
    turned = vectors.astype(jnp.float32)
    for step in range(steps):
        if step > 0:  # S S only scales the principal components of the first step
            turned = scatter @ (scatter @ jnp.linalg.qr(turned)[0])
        turned = jax.scipy.linalg.cho_solve((chol, True), turned)
    return (turned / jnp.linalg.norm(turned, axis=0, keepdims=True)).astype(vectors.dtype)


def _reduced_basis(moments, spectrum, patches, coefficients, max_rank):
    """An orthonormal basis near the leading encoders of every ratio, or None if as wide as D."""
    used = [pair for pair in coefficients if pair is not None]
    few, many = (spectrum.vectors[:, : max_rank + spare] for spare in (_SPARE, _SPARE_TURNED))
    if 2 * few.shape[1] + many.shape[1] >= moments.num_features:
        return None
    # Encoders turn fastest where little is masked, so one step sits at a low ratio.
    low = _towards(moments.scatter, patches, few, used[len(used) // 4], steps=1)
    high = _towards(moments.scatter, patches, many, used[-1 - len(used) // 8], steps=3)
    return jnp.linalg.qr(jnp.concatenate([few, low, high], axis=1))[0]


def _coefficients(kind: str, ratio: float, num_patches: int) -> tuple[float, float] | None:
    """(c_S, c_B) of the second moment up to a common factor; None where nothing is dropped."""
    if kind == "bernoulli":
        return (1 - ratio, ratio) if ratio > 0 else None
    kept = num_kept(ratio, num_patches)
    if kept < 1 or num_patches < 2:
        raise ValueError(
            f"ratio={ratio} keeps {kept} of {num_patches} patches; at least 1 of 2 must remain"
        )
    both = (kept - 1) / (num_patches - 1)  # that a second patch is kept too
    return (both, 1 - both) if kept < num_patches else None


def mask_sweep(
    moments: Moments,
    ratios: Sequence[float],
    patch_sizes: Sequence[int | tuple[int, int]],
    image_shape: tuple[int, int, int],
    *,
    kind: str = "bernoulli",
    max_rank: int | None = None,
    solver_dtype: DTypeLike | None = None,
    spectrum: Spectrum | None = None,
    tolerance: float | None = None,
) -> Float[np.ndarray, "p r k"]:
    """Alignment curves for every mask ratio and patch size.

    The same numbers as `alignment_curve(moments, patch_mask(ratio, patch_size, image_shape))` (or
    `patch_subset`) for every pair, sharing the work. Not for use inside jit.

    Args:
      moments: statistics of the labelled images.
      ratios: fractions dropped, ascending, each in [0, 1).
      patch_sizes: patch sides in pixels, or (height, width); each must divide the image.
      image_shape: (H, W, C).
      kind: "bernoulli" (`patch_mask`) or "subset" (`patch_subset`).
      max_rank: the largest K asked for. Where 3 max_rank + 192 < D a reduced basis replaces the
        full problem, and the curve is within 1e-3 of the exact one (2.5e-4 seen on CIFAR-10 at
        K <= 256).
      solver_dtype: of the eigenproblem at each ratio, after a preparation in the precision of the
        moments; that of the moments if None. float32 takes half the time, but confuses encoders of
        nearly equal worth (errors of 1.5e-3 seen at single K).
      spectrum: of the moments, if already at hand.
      tolerance: relative size below which variance counts as zero; 16 eps if None.

    Returns:
      curves (patch sizes, ratios, max_rank or D) in [0, 1].

    Raises:
      ValueError: for an unknown kind, ratios not ascending or outside [0, 1), a patch that does not
        divide the image, max_rank outside 1 .. D, or fewer than two classes.
    """
    ratios = [float(ratio) for ratio in ratios]
    if kind not in ("bernoulli", "subset"):
        raise ValueError(f"kind must be 'bernoulli' or 'subset', got {kind!r}")
    if not ratios or ratios != sorted(ratios) or not 0 <= ratios[0] <= ratios[-1] < 1:
        raise ValueError(f"ratios must be ascending and lie in [0, 1), got {ratios}")
    size = moments.num_features
    max_rank = size if max_rank is None else max_rank
    if not 1 <= max_rank <= size:
        raise ValueError(f"max_rank must lie in 1 .. {size}, got {max_rank}")
    if math.prod(image_shape) != size:
        raise ValueError(
            f"images {tuple(image_shape)} have {math.prod(image_shape)} scalars, the moments {size}"
        )
    require_classes(moments)
    indices = [patch_index(patch_size, image_shape) for patch_size in patch_sizes]
    pairs = [[_coefficients(kind, r, int(index.max()) + 1) for r in ratios] for index in indices]

    tolerance = resolve_tolerance(tolerance, moments.scatter.dtype)
    spectrum = eigendecompose(moments) if spectrum is None else spectrum
    dtype = jnp.dtype(solver_dtype or moments.scatter.dtype)
    total = jnp.sum(whitened_labels(moments, spectrum, tolerance) ** 2)
    weights = jnp.sqrt(moments.class_counts.astype(total.dtype))
    clean = alignment_curve(moments, spectrum=spectrum, tolerance=tolerance)[:max_rank]

    families: list[_Family | None] = [None] * len(indices)
    locks = [threading.Lock() for _ in indices]

    def family_of(patch):
        # Made by whichever worker comes first, while the others work on other patch sizes.
        with locks[patch]:
            if families[patch] is None:
                families[patch] = prepare(indices[patch], pairs[patch])
            return families[patch]

    def prepare(index, coefficients):
        patches = within_patches(moments.scatter, index)
        basis = _reduced_basis(moments, spectrum, patches, coefficients, max_rank)
        if basis is None:
            projected = _on_pixels(
                moments.scatter, squared(), moments.cross, index, int(index.max()) + 1, tolerance
            )
        else:
            projected = _on_basis(moments.scatter, patches, moments.cross, basis, tolerance)
        return _family(projected, weights, tolerance)

    @functools.cache
    def squared():
        return moments.scatter @ moments.scatter

    def solve(task):
        pair = pairs[task[1]][task[0]]
        if pair is None:
            return clean
        pair = jnp.asarray(pair, total.dtype)
        return _curve(family_of(task[1]), total, pair, max_rank, dtype)

    with jax.default_matmul_precision("highest"):
        tasks = list(itertools.product(range(len(ratios)), range(len(indices))))
        curves = parallel.host_map(solve, tasks)
    curves = np.stack(curves).astype(np.float64)
    return curves.reshape(len(ratios), len(indices), max_rank).swapaxes(0, 1)
