"""The spectrum of the data: what reconstruction learns first; top and bottom parts of images."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from recon_jax.checks import is_concrete
from recon_jax.linalg import default_tolerance, eigh_descending
from recon_jax.spectral.moments import Moments

# Cumulative variances, of thousands of float64 numbers, that differ by less are the same.
ROUNDING = 1e-12


class Spectrum(NamedTuple):
    """Principal components of a dataset.

    Attributes:
      values: eigenvalues of the scatter S, s_k^2, descending (D,); sums over images, so the
        variance along component k is values[k] / N.
      vectors: principal directions, one a column (D, D).
      mean: mean image (D,).
    """

    values: Float[Array, " d"]
    vectors: Float[Array, "d d"]
    mean: Float[Array, " d"]


def require_variance(moments: Moments) -> None:
    """Raise ValueError if the images do not vary (one image, or all alike). Skipped inside jit."""
    if not is_concrete(moments.count, moments.scatter):
        return
    with jax.ensure_compile_time_eval():
        count, energy = int(moments.count), float(jnp.trace(moments.scatter))
        brightness = float(jnp.linalg.norm(moments.mean))
    if count < 2:
        raise ValueError(f"{count} image(s) have no spectrum; at least 2 different ones are needed")
    if not np.isfinite(energy):
        raise ValueError("the scatter matrix holds NaN or infinite entries")
    # What centring equal images leaves in floating point is not variance.
    if energy <= count * (default_tolerance(moments.mean.dtype) * brightness) ** 2:
        raise ValueError(f"all {count} images are the same: there is no variance to explain")


def eigendecompose(moments: Moments) -> Spectrum:
    """Principal components of the images: S = U diag(s_k^2) U^T.

    Args:
      moments: statistics of at least two different images.

    Returns:
      The Spectrum, largest eigenvalue first, with a fixed sign. Rounding can leave eigenvalues of a
      rank-deficient scatter slightly negative; they are set to zero.

    Raises:
      ValueError: if the images do not vary or an entry is not finite (checked outside jit).
    """
    require_variance(moments)
    values, vectors = eigh_descending(moments.scatter)
    return Spectrum(jnp.maximum(values, 0), vectors, moments.mean)


def explained_variance(spectrum: Spectrum) -> Float[Array, " d"]:
    """Fraction of the pixel variance held by the first k components, k = 1 .. D; ends at 1.

    Args:
      spectrum: of the data.

    >>> spectrum = Spectrum(jnp.array([3.0, 1.0]), jnp.eye(2), jnp.zeros(2))
    >>> explained_variance(spectrum).tolist()
    [0.75, 1.0]
    """
    cumulative = jnp.cumsum(spectrum.values)
    return cumulative / cumulative[-1]


def cumulative_variance(spectrum: Spectrum) -> Float[np.ndarray, " d"]:
    """`explained_variance` on the host in float64, whatever the spectrum has."""
    cumulative = np.cumsum(np.asarray(spectrum.values, np.float64))
    return cumulative / cumulative[-1]


def below(spectrum: Spectrum, threshold: float) -> Bool[np.ndarray, " d"]:
    """Components whose cumulative variance is below a threshold by more than rounding, 1e-12.

    Thresholds may be cumulative variances themselves, which sums in another order give only nearly.
    """
    return cumulative_variance(spectrum) < threshold - ROUNDING


def split_by_variance(
    spectrum: Spectrum, threshold: float
) -> tuple[Float[Array | np.ndarray, "d k"], Float[Array | np.ndarray, "d l"]]:
    """Split the pixel space into the top and the bottom of the spectrum.

    top = the leading components whose cumulative variance, themselves included, stays below
    `threshold`; bottom = all others. The kept top mass is thus slightly below the threshold. The
    shapes depend on the values: not for use inside jit.

    Args:
      spectrum: of the data.
      threshold: fraction of the variance, in [0, 1].

    Returns:
      Bases (D, K) and (D, D - K) with orthonormal columns; either can have no column.

    Raises:
      ValueError: if the threshold lies outside [0, 1].

    Source: Balestriero & LeCun 2024 (arXiv 2402.11337), Fig. 1, and its released code.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must lie in [0, 1], got {threshold}")
    rank = int(np.sum(below(spectrum, threshold)))
    return spectrum.vectors[:, :rank], spectrum.vectors[:, rank:]


def project(
    images: Float[ArrayLike, "n ..."], basis: Float[Array, "d k"], mean: Float[Array, " d"]
) -> Float[Array, "n ..."]:
    """Orthogonal projection of images on a subspace around the mean: mean + U U^T (x - mean).

    For the bottom of the spectrum of large images, images - project(images, top, mean) + mean is
    the same and cheaper when the top basis is narrow.

    Args:
      images: (N, H, W, C) or (N, D).
      basis: orthonormal columns (D, K).
      mean: mean image (D,).

    Returns:
      The projected images, shaped as the input.

    Raises:
      ValueError: if the image size differs from the basis.
    """
    images = jnp.asarray(images)
    rows = images.reshape(images.shape[0], -1)
    if rows.shape[1] != basis.shape[0]:
        raise ValueError(
            f"images of shape {images.shape[1:]} have {rows.shape[1]} scalars, the basis has "
            f"{basis.shape[0]}"
        )
    centred = rows - mean[None, :]
    projected = mean[None, :] + jnp.matmul(
        jnp.matmul(centred, basis, precision="highest"), basis.T, precision="highest"
    )
    return projected.reshape(images.shape)


def learning_times(
    spectrum: Spectrum, *, initial: ArrayLike = 1e-3, fraction: ArrayLike = 0.5
) -> Float[Array, " d"]:
    """Gradient-flow time at which a linear autoencoder has learned each mode.

    Gradient flow on 1/2 ||W^T V^T X - X||^2 from a balanced, aligned start a_k(0) = `initial` gives
    da_k/dt = 2 a_k (1 - a_k) s_k^2, so a_k(t) = 1 / (1 + (1/a_0 - 1) exp(-2 s_k^2 t)), and a_k
    reaches `fraction` f at t_k = log((1/a_0 - 1) f / (1 - f)) / (2 s_k^2): modes are learned in the
    order of their variance, those that perception needs last.

    Args:
      spectrum: of the data.
      initial: a_k(0), in (0, 1); a scalar or one value a mode (D,).
      fraction: f in (0, 1).

    Returns:
      t_k (D,) in units of 1 / (learning rate x summed squared loss); infinite where s_k^2 = 0.

    Raises:
      ValueError: if `initial` or `fraction` lies outside (0, 1) (checked outside jit).

    Source: derived for Balestriero & LeCun 2024; cf. Saxe, McClelland & Ganguli 2014.
    """
    for name, value in (("initial", initial), ("fraction", fraction)):
        if is_concrete(value) and not bool(
            np.all((np.asarray(value) > 0) & (np.asarray(value) < 1))
        ):
            raise ValueError(f"{name} must lie in (0, 1), got {value}")
    odds = lambda value: value / (1 - value)  # noqa: E731
    gain = jnp.log(odds(jnp.asarray(fraction)) / odds(jnp.asarray(initial)))
    gain = jnp.broadcast_to(gain, spectrum.values.shape)
    return gain / (2 * spectrum.values)


def learned_fraction(
    spectrum: Spectrum, time: ArrayLike, *, initial: ArrayLike = 1e-3
) -> Float[Array, " d"]:
    """How much of each mode gradient flow has learned at `time`; see `learning_times`.

    a_k(t) = 1 / (1 + (1/a_0 - 1) exp(-2 s_k^2 t)), in (0, 1).

    Args:
      spectrum: of the data.
      time: t >= 0, in units of 1 / (learning rate x summed squared loss).
      initial: a_0 in (0, 1).

    >>> spectrum = Spectrum(jnp.array([1.0, 0.01]), jnp.eye(2), jnp.zeros(2))
    >>> [round(float(part), 3) for part in learned_fraction(spectrum, 5.0)]
    [0.957, 0.001]
    """
    logit = jnp.log(jnp.asarray(initial) / (1 - jnp.asarray(initial)))
    logit = jnp.broadcast_to(logit, spectrum.values.shape)
    return jax.nn.sigmoid(logit + 2 * spectrum.values * time)
