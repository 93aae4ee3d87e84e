"""Everything the closed forms say about one corruption, from one eigenproblem."""

from __future__ import annotations

from typing import NamedTuple

from jaxtyping import Array, Float

from recon_jax.spectral.alignment import alignment_curve, relative_change
from recon_jax.spectral.corruptions import Corruption
from recon_jax.spectral.encoders import denoising_encoders
from recon_jax.spectral.moments import Moments
from recon_jax.spectral.neutrality import Neutrality, neutrality
from recon_jax.spectral.spectrum import Spectrum, eigendecompose


class Survey(NamedTuple):
    """What a corruption does to alignment, and whether it could ever help.

    Attributes:
      alignment: alignment curve under the corruption (D,), in [0, 1].
      impact: its relative change against plain reconstruction (D,).
      neutrality: the label-free verdict.
    """

    alignment: Float[Array, " d"]
    impact: Float[Array, " d"]
    neutrality: Neutrality


def survey(
    moments: Moments,
    corruption: Corruption,
    *,
    spectrum: Spectrum | None = None,
    max_rank: int | None = None,
    tolerance: float | None = None,
) -> Survey:
    """`alignment_curve`, `corruption_impact` and `neutrality` of one corruption, sharing the work.

    Args:
      moments: statistics of the labelled images.
      corruption: T.
      spectrum: of the moments, if already at hand.
      max_rank: largest K for the sines of `neutrality`; min(D, 256) if None.
      tolerance: relative size below which variance counts as zero; 16 eps if None.

    Raises:
      ValueError: as the three functions do.
    """
    spectrum = eigendecompose(moments) if spectrum is None else spectrum
    encoders = denoising_encoders(moments, corruption, spectrum=spectrum, tolerance=tolerance)
    shared = {"spectrum": spectrum, "encoders": encoders, "tolerance": tolerance}
    curve = alignment_curve(moments, corruption, **shared)
    clean = alignment_curve(moments, spectrum=spectrum, tolerance=tolerance)
    verdict = neutrality(moments, corruption, max_rank=max_rank, **shared)
    return Survey(curve, relative_change(curve, clean), verdict)
