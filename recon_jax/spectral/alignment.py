"""How much of the labels the reconstruction-optimal latents can explain, for every rank at once.

With Q_K an orthonormal basis of the row space of the K optimal latents on clean images,
a(K) = ||Y^T Y Q_K||_F / ||Y^T Y Q_D||_F. For balanced classes a(K)^2 is the fraction of the label
energy, explainable by a linear read-out of all pixels, that K latents already explain; classes of
unequal size are weighted by their counts. Nothing here needs the N x D data: the orthonormalisation
is a QR of D x D latents in the whitened eigenbasis.

Source: Balestriero & LeCun 2024 (arXiv 2402.11337), alignment metric of the released code.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from recon_jax.checks import is_concrete
from recon_jax.spectral.corruptions import Corruption
from recon_jax.spectral.encoders import (
    Encoders,
    denoising_encoders,
    in_range,
    resolve_tolerance,
    whitening,
)
from recon_jax.spectral.moments import Moments
from recon_jax.spectral.spectrum import Spectrum, eigendecompose


def require_classes(moments: Moments) -> None:
    """Raise ValueError unless two classes or more are present. Skipped inside jit."""
    require_two_classes(moments.class_counts)


def require_two_classes(class_counts: Int[Array, " c"]) -> None:
    """Raise ValueError unless two counts or more are positive. Skipped inside jit."""
    if not is_concrete(class_counts):
        return
    present = int(np.count_nonzero(class_counts))
    if present < 2:
        raise ValueError(
            f"alignment compares classes, but only {present} of {len(class_counts)} classes have "
            "images; give labels of two classes or more"
        )


def whitened_labels(
    moments: Moments, spectrum: Spectrum, tolerance: ArrayLike
) -> Float[Array, "d c"]:
    """Labels in the orthonormal row-space basis, R Y^T = S^{-1/2} U^T X Y^T, weighted sqrt(n_c)."""
    projected = jnp.matmul(spectrum.vectors.T, moments.cross, precision="highest")
    weights = jnp.sqrt(moments.class_counts.astype(projected.dtype))
    return whitening(spectrum, tolerance)[:, None] * projected * weights[None, :]


def live_first(encoders: Encoders, tolerance: ArrayLike) -> tuple[Float[Array, "d d"], Array]:
    """Latents with columns that vanish on the clean images moved last, and which ones are live."""
    energy = jnp.sum(encoders.latents**2, axis=0)
    live = energy > tolerance * energy.max()
    order = jnp.argsort(~live, stable=True)
    live = live[order]
    return jnp.where(live[None, :], encoders.latents[:, order], 0), live


def energy_by_rank(
    latents: Float[Array, "d k"], live: Array, labels: Float[Array, "d c"]
) -> Float[Array, " k"]:
    """Label energy that each latent adds to those before it; zero for latents not `live`."""
    # The last columns of the R factor of [W | labels] are Q^T labels: Q itself is not needed.
    rank = latents.shape[1]
    r_factor = jnp.linalg.qr(jnp.concatenate([latents, labels], axis=1), mode="r")
    return jnp.where(live, jnp.sum(r_factor[:rank, rank:] ** 2, axis=1), 0)


@jax.jit
def _identity_curve(moments, spectrum, tolerance):
    energy = jnp.sum(whitened_labels(moments, spectrum, tolerance) ** 2, axis=1)
    cumulative = jnp.cumsum(energy)
    return jnp.sqrt(cumulative / cumulative[-1])


@jax.jit
def _curve(moments, spectrum, encoders, tolerance):
    labels = whitened_labels(moments, spectrum, tolerance)
    energy = energy_by_rank(*live_first(encoders, tolerance), labels)
    return jnp.sqrt(jnp.minimum(jnp.cumsum(energy) / jnp.sum(labels**2), 1))


def alignment_curve(
    moments: Moments,
    corruption: Corruption | None = None,
    *,
    spectrum: Spectrum | None = None,
    encoders: Encoders | None = None,
    tolerance: float | None = None,
) -> Float[Array, " d"]:
    """Alignment a(K) of K reconstruction-optimal latents with the labels, for K = 1 .. D.

    Args:
      moments: statistics of the labelled images.
      corruption: what the autoencoder is trained to undo; None is plain reconstruction (PCA).
      spectrum: of the moments, if already at hand.
      encoders: `denoising_encoders(moments, corruption)`, if already at hand.
      tolerance: relative size below which variance counts as zero; 16 eps if None.

    Returns:
      a (D,) in [0, 1], non-decreasing. It ends at 1 unless the corruption destroys directions of
      the images for good (grayscale, downsample); beyond the rank of the data it is constant.
      float64 is accurate to about 1e-9. float32 cannot resolve variance below about 1e-6 of the
      largest; on CIFAR-10 it is within 0.06 of float64, and within 0.01 in the ratio of two curves.

    Raises:
      ValueError: if fewer than two classes have images, the images do not vary, or statistics are
        not finite (checked outside jit).
    """
    require_classes(moments)
    tolerance = resolve_tolerance(tolerance, moments.scatter.dtype)
    spectrum = eigendecompose(moments) if spectrum is None else spectrum
    if corruption is None:
        return _identity_curve(moments, spectrum, tolerance)
    if encoders is None:
        encoders = denoising_encoders(moments, corruption, spectrum=spectrum, tolerance=tolerance)
    return _curve(moments, spectrum, encoders, tolerance)


@jax.jit
def _label_r2(moments, spectrum, tolerance):
    counts = moments.class_counts.astype(moments.scatter.dtype)
    # Each class weighs its size, as in the alignment.
    variance = jnp.sum(counts * (counts - counts**2 / moments.count))
    explained = jnp.sum(whitened_labels(moments, spectrum, tolerance) ** 2) / variance
    freedom = moments.count - 1 - jnp.sum(in_range(spectrum, tolerance))
    unexplained = (1 - explained) * (moments.count - 1) / jnp.where(freedom > 0, freedom, 1)
    return explained, jnp.where(freedom > 0, 1 - unexplained, jnp.nan)


def label_r2(
    moments: Moments,
    *,
    adjusted: bool = True,
    spectrum: Spectrum | None = None,
    tolerance: float | None = None,
) -> Float[Array, ""]:
    """R^2 of the best affine read-out of the one-hot labels from all pixels.

    What alignment is a share of: where the adjusted value is near 0, pixels tell nothing linearly,
    and a(K) is sqrt(K / rank) whatever the images are.

    Args:
      moments: statistics of the labelled images; classes weigh their sizes.
      adjusted: 1 - (1 - R^2) (N - 1) / (N - 1 - rank), unbiased where labels are unrelated; NaN if
        the images do not outnumber the rank of the pixels, and so can be told apart one by one.
      spectrum: of the moments, if already at hand.
      tolerance: relative size below which variance counts as zero; 16 eps if None.

    Raises:
      ValueError: as `alignment_curve` does.
    """
    require_classes(moments)
    tolerance = resolve_tolerance(tolerance, moments.scatter.dtype)
    spectrum = eigendecompose(moments) if spectrum is None else spectrum
    plain, corrected = _label_r2(moments, spectrum, tolerance)
    return corrected if adjusted else plain


def corruption_impact(
    moments: Moments,
    corruption: Corruption,
    *,
    spectrum: Spectrum | None = None,
    encoders: Encoders | None = None,
    tolerance: float | None = None,
) -> Float[Array, " d"]:
    """Relative change of the alignment curve by a corruption: (a_T(K) - a_0(K)) / a_0(K).

    Positive where denoising makes K latents more useful for the labels than plain reconstruction;
    0.01 is one per cent. Arguments and errors as for `alignment_curve`; 0 where a_0(K) = 0.
    """
    tolerance = resolve_tolerance(tolerance, moments.scatter.dtype)
    spectrum = eigendecompose(moments) if spectrum is None else spectrum
    clean = alignment_curve(moments, spectrum=spectrum, tolerance=tolerance)
    corrupted = alignment_curve(
        moments, corruption, spectrum=spectrum, encoders=encoders, tolerance=tolerance
    )
    return relative_change(corrupted, clean)


def relative_change(curve: Float[Array, " k"], clean: Float[Array, " k"]) -> Float[Array, " k"]:
    """(curve - clean) / clean, and 0 where clean is 0."""
    return jnp.where(clean > 0, (curve - clean) / jnp.where(clean > 0, clean, 1), 0)
