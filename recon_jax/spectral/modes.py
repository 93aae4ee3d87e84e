"""How much of each mode of the data a reconstruction holds, streamed batch by batch."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from recon_jax.linalg import eigh_descending
from recon_jax.spectral.moments import Moments
from recon_jax.spectral.spectrum import Spectrum, require_variance


class ModeBasis(NamedTuple):
    """Directions along which reconstructions are measured; a pytree.

    Attributes:
      directions: c_k, eigenvectors of the second moment X^T X about the origin (D, D).
      components: u_k, eigenvectors of the scatter about the mean (D, D).
      mean: mean image (D,).
    """

    directions: Float[Array, "d d"]
    components: Float[Array, "d d"]
    mean: Float[Array, " d"]


class ModeSums(NamedTuple):
    """Sums over images, mode by mode; sums of two sets of images add up, leaf by leaf.

    Attributes:
      energy: ||Xhat c_k||^2 (D,), about the origin.
      overlap: <Xhat u_k, X u_k> (D,), about the mean of the data.
    """

    energy: Float[Array, " d"]
    overlap: Float[Array, " d"]


def second_moment_spectrum(moments: Moments) -> Spectrum:
    """Spectrum of the images about the origin: X^T X = S + N m m^T = C diag(v) C^T.

    The first direction is close to the mean image, and the trace is the energy of all pixels.

    Args:
      moments: statistics of at least two different images.

    Returns:
      The Spectrum, largest eigenvalue first, whose `mean` is zero.

    Raises:
      ValueError: if the images do not vary or an entry is not finite (checked outside jit).

    Source: Balestriero & LeCun 2024 (arXiv 2402.11337), Fig. 1 bottom, which does not centre.
    """
    require_variance(moments)
    mean = moments.mean
    second = moments.scatter + moments.count.astype(mean.dtype) * mean[:, None] * mean[None, :]
    values, vectors = eigh_descending(second)
    return Spectrum(jnp.maximum(values, 0), vectors, jnp.zeros_like(mean))


def mode_sums(
    reconstructions: Float[ArrayLike, "n ..."],
    images: Float[ArrayLike, "n ..."],
    basis: ModeBasis,
    mask: Bool[ArrayLike, " n"],
) -> ModeSums:
    """Energy and overlap of every mode over one batch. Pure, for use under jit.

    Args:
      reconstructions: Xhat, (N, H, W, C) or (N, D).
      images: X, of the same shape.
      basis: see `ModeBasis`.
      mask: (N,), False for padding.

    Returns:
      The ModeSums. In float32 an entry is accurate to about N eps ||x||^2.

    Raises:
      ValueError: if the shapes differ, or the images do not fit the basis.

    Source: Balestriero & LeCun 2024 (arXiv 2402.11337), Fig. 1 bottom.
    """
    reconstructions, images = jnp.asarray(reconstructions), jnp.asarray(images)
    if reconstructions.shape != images.shape:
        raise ValueError(f"reconstructions {reconstructions.shape} of images {images.shape}")
    rows, size = images.shape[0], basis.mean.shape[0]
    if images.size != rows * size:
        raise ValueError(
            f"images of shape {images.shape[1:]} have {images.size // rows} scalars, the basis has "
            f"{size}"
        )

    def along(array, vectors, origin):
        array = (array.reshape(rows, size) - origin) * jnp.asarray(mask)[:, None]
        return jnp.matmul(array, vectors, precision="highest")

    origin = basis.mean[None, :]
    # Both are taken about the mean, which changes no overlap but keeps digits.
    overlap = along(reconstructions, basis.components, origin) * along(
        images, basis.components, origin
    )
    energy = jnp.square(along(reconstructions, basis.directions, 0))
    return ModeSums(energy.sum(0), overlap.sum(0))


def reconstructed_fraction(
    overlap: Float[np.ndarray, "*t d"], values: Float[np.ndarray, " d"]
) -> Float[np.ndarray, "*t d"]:
    """Regression coefficient of reconstructions on images along each mode.

    a_k = <Xhat u_k, X u_k> / ||X u_k||^2 about the mean: 0 where nothing of a mode is
    reconstructed, 1 where all of it is; the a_k(t) of `learned_fraction`. It can leave [0, 1].

    Args:
      overlap: of `ModeSums`, (D,) or (T, D).
      values: eigenvalues of the scatter, ||X u_k||^2 (D,).

    Returns:
      a_k, float64, shaped as `overlap`; NaN where a mode has no variance.
    """
    safe = np.where(values > 0, values, np.nan)
    return np.asarray(overlap, np.float64) / safe


def resolved_modes(variances: Float[np.ndarray, " d"]) -> Bool[np.ndarray, " d"]:
    """Modes of images in [0, 1] that vary by more than 8-bit pixels do by their own rounding.

    Rounding to steps of 1 / 255 has variance 1 / (12 255^2) in every direction. What varies by
    less, as pixels that hardly ever change, says more of the file than of the images.

    Args:
      variances: s_k^2 / N (D,).

    Returns:
      (D,) booleans.
    """
    return np.asarray(variances) > 1 / (12 * 255**2)
