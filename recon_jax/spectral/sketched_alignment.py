"""Alignment of the leading components with the labels, where the whole spectrum is out of reach."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from recon_jax.linalg import default_tolerance
from recon_jax.spectral.alignment import require_two_classes
from recon_jax.spectral.sketch import Sketch


class AlignmentBracket(NamedTuple):
    """Between which values the alignment of K latents lies, for K = 1 .. L.

    Attributes:
      lower: relative to all variance of the labels, as if all pixels explained them fully (L,).
      upper: relative to what the L components explain (L,); ends at 1.
    """

    lower: Float[Array, " l"]
    upper: Float[Array, " l"]


def sketched_alignment(sketch: Sketch, *, tolerance: float | None = None) -> AlignmentBracket:
    """Alignment a(K) of the K leading components with the labels, bracketed; plain reconstruction.

    The label energy that component k adds is e_k = sum_c n_c (v_k^T X y_c)^2 / theta_k, and
    a(K)^2 = sum_{k <= K} e_k / E. Ritz vectors give uncorrelated latents, as principal components
    do, so e_k is exact for the encoder that has them for rows. E, the energy that all pixels
    explain, is not known from a part of the spectrum; it lies between that of the L components and
    sum_c n_c (n_c - n_c^2 / N), the whole variance of the labels.

    Args:
      sketch: of labelled images; trust a component as far as `eigenvalue_bounds` does.
      tolerance: relative size below which variance counts as zero; 16 eps if None.

    Returns:
      The AlignmentBracket around a(K) of this encoder. It closes, and equals `alignment_curve`,
      where the sketch holds all variance; both bounds are exact in ratios of two K.

    Raises:
      ValueError: if fewer than two classes have images (checked outside jit).
    """
    require_two_classes(sketch.class_counts)
    values, counts = sketch.values, sketch.class_counts.astype(sketch.values.dtype)
    tolerance = default_tolerance(values.dtype) if tolerance is None else tolerance
    live = values > tolerance * values[0]
    projected = jnp.matmul(sketch.vectors.T, sketch.cross, precision="highest")
    added = jnp.sum(projected**2 * counts[None, :], axis=1) / jnp.where(live, values, 1)
    explained = jnp.cumsum(jnp.where(live, added, 0))
    complete = sketch.total - jnp.sum(values) <= tolerance * sketch.total
    variance = jnp.sum(counts * (counts - counts**2 / sketch.count))
    most = jnp.where(complete, explained[-1], jnp.maximum(variance, explained[-1]))
    return AlignmentBracket(jnp.sqrt(explained / most), jnp.sqrt(explained / explained[-1]))
