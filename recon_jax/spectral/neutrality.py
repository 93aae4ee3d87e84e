"""Corruptions that can never help, whatever the labels: a criterion without labels.

Let P_T(K) and P_0(K) project on the row spaces of the K optimal latents with and without the
corruption. The label energy gained is tr[(P_T - P_0) Y^T Y], and the eigenvalues of P_T - P_0 are
+- sin of the principal angles between the two spaces. So over tasks of unit energy the best gain is
sin(theta_max) and the worst -sin(theta_max): a corruption either leaves every task alone, or helps
one as much as it hurts another. It is neutral at every K iff its second moment commutes with the
scatter and keeps the order of the components.

Source: derived from Balestriero & LeCun 2024 (arXiv 2402.11337), section on detecting noises that
are never beneficial.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float

from recon_jax.spectral.alignment import live_first
from recon_jax.spectral.corruptions import Corruption
from recon_jax.spectral.encoders import (
    Encoders,
    denoising_encoders,
    in_range,
    resolve_tolerance,
)
from recon_jax.spectral.moments import Moments
from recon_jax.spectral.spectrum import Spectrum, eigendecompose


class Neutrality(NamedTuple):
    """Whether a corruption can change what K latents say about any task.

    Attributes:
      overlap: (D,), mean squared cosine between the two latent spaces at K = 1 .. D; 1 is the same
        space.
      max_sine: (K,), sin(theta_max) at K = 1 .. max_rank; 0 neutral, 1 a task is all won or lost.
      is_neutral: True if no K with a separated spectrum turns the space by more than the angle
        tolerance.
      worst_gain: (K,), most negative change of explained label energy over tasks of unit energy.
      best_gain: (K,), most positive one; the opposite of the worst.
      commutes: True if the second moment is diagonal in the principal components, so that the
        corruption at most reorders them.
      resolved: (D,), the K at which both spectra are separated, so that the spaces are unique.
    """

    overlap: Float[Array, " d"]
    max_sine: Float[Array, " k"]
    is_neutral: Bool[Array, ""]
    worst_gain: Float[Array, " k"]
    best_gain: Float[Array, " k"]
    commutes: Bool[Array, ""]
    resolved: Bool[Array, " d"]


def _outside_energy(cosines: Array) -> Array:
    """Sum of sin^2(theta) at every K: what the first K columns put below row K."""
    within = jnp.cumsum(cosines**2, axis=1)
    return jnp.sum(jnp.tril(within, -1), axis=0)


def _max_sines(cosines: Array, max_rank: int) -> Array:
    """Largest singular value of Q[K:, :K] for K = 1 .. max_rank.

    The Gram matrix of the block grows by one row at a time as K falls, so that only non-negative
    terms are added and small sines keep their digits.
    """
    left = cosines[:, :max_rank]
    gram = left[max_rank:].T @ left[max_rank:]
    index = jnp.arange(max_rank)

    def step(gram, rank):
        inside = (index < rank).astype(gram.dtype)
        largest = jnp.linalg.eigvalsh(gram * inside[:, None] * inside[None, :])[-1]
        row = left[rank - 1]
        return gram + row[:, None] * row[None, :], jnp.sqrt(jnp.clip(largest, 0, 1))

    _, sines = jax.lax.scan(step, gram, jnp.arange(max_rank, 0, -1))
    return sines[::-1]


def _gaps(values: Array, tolerance: ArrayLike) -> Array:
    following = jnp.concatenate([values[1:], jnp.zeros((1,), values.dtype)])
    return values - following > tolerance * values[0]


@partial(jax.jit, static_argnames="max_rank")
def _neutrality(spectrum, encoders, tolerance, angle_tolerance, max_rank):
    with jax.default_matmul_precision("highest"):
        in_data = in_range(spectrum, tolerance)
        latents, live = live_first(encoders, tolerance)
        # Q has the clean encoders' latents as coordinate axes: those are the eigenbasis itself.
        cosines = jnp.where(live[None, :], jnp.linalg.qr(latents)[0], 0)
        rank, rank_data = jnp.cumsum(live), jnp.cumsum(in_data)
        outside = _outside_energy(cosines) + (rank_data - rank)
        resolved = _gaps(spectrum.values, tolerance) & _gaps(encoders.values, tolerance) & in_data
        sines = _max_sines(cosines, max_rank)
        # Where the corruption leaves fewer latents than the clean data has, a direction is lost.
        sines = jnp.where(rank[:max_rank] < rank_data[:max_rank], 1, sines)
        return Neutrality(
            overlap=jnp.clip(1 - outside / rank_data, 0, 1),
            max_sine=sines,
            is_neutral=jnp.all(jnp.where(resolved, outside, 0) <= angle_tolerance**2),
            worst_gain=-sines,
            best_gain=sines,
            commutes=encoders.commutes,
            resolved=resolved,
        )


def neutrality(
    moments: Moments,
    corruption: Corruption,
    *,
    max_rank: int | None = None,
    spectrum: Spectrum | None = None,
    encoders: Encoders | None = None,
    tolerance: float | None = None,
    angle_tolerance: float = 1e-3,
) -> Neutrality:
    """Decide, without labels, whether a corruption could ever help (or hurt) perception.

    Args:
      moments: statistics of the images; the labels in them are not used.
      corruption: T.
      max_rank: largest K for which `max_sine` is computed; min(D, 256) if None. `overlap` and
        `is_neutral` cover every K.
      spectrum: of the moments, if already at hand.
      encoders: `denoising_encoders(moments, corruption)`, if already at hand.
      tolerance: relative size below which variance, and a gap in a spectrum, counts as zero; 16 eps
        if None. At K where a spectrum has no gap the K latents are not unique, and the decision
        leaves that K out.
      angle_tolerance: sqrt(sum sin^2(theta)) up to which two spaces count as the same.

    Returns:
      The Neutrality.

    Raises:
      ValueError: if `max_rank` is not in 1 .. D, or the images do not vary (checked outside jit).
    """
    size = moments.num_features
    max_rank = min(size, 256) if max_rank is None else max_rank
    if not 1 <= max_rank <= size:
        raise ValueError(f"max_rank must lie in 1 .. {size}, got {max_rank}")
    tolerance = resolve_tolerance(tolerance, moments.scatter.dtype)
    spectrum = eigendecompose(moments) if spectrum is None else spectrum
    if encoders is None:
        encoders = denoising_encoders(moments, corruption, spectrum=spectrum, tolerance=tolerance)
    return _neutrality(spectrum, encoders, tolerance, angle_tolerance, max_rank)
