"""Top and bottom of the spectrum as named parts: what they keep, and images projected on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from recon_jax.spectral.spectrum import (
    Spectrum,
    below,
    cumulative_variance,
    project,
    split_by_variance,
)

SIDES = ("top", "bottom", "all")


class Subspace(NamedTuple):
    """A part of the spectrum.

    Attributes:
      side: top, bottom, or all for the images as they are.
      percent: of the variance by which it is called: 100 t for the top below threshold t,
        100 (1 - t) for the bottom. What is really kept is a little less for a top, a little more
        for a bottom.
      threshold: t in [0, 1], see `split_by_variance`.
    """

    side: str
    percent: float
    threshold: float

    @property
    def label(self) -> str:
        """Such as "bottom 20%"."""
        return self.side if self.side == "all" else f"{self.side} {self.percent:.4g}%"


def subspace_thresholds(
    spectrum: Spectrum, count: int = 8
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """The thresholds of the published top and bottom curves, for `split_by_variance`.

    With lo the variance of the first two components and hi that of all components but the last, top
    thresholds are linspace(lo, hi, n), bottom thresholds lo + linspace(0, 1, n)^(1/4) (hi - lo),
    denser where the bottom is small.

    Args:
      spectrum: of the data; at least three components carry variance.
      count: n, at least 2.

    Returns:
      Top and bottom thresholds, ascending, float64.

    Raises:
      ValueError: if the count is below 2, or the data have fewer than three components.

    Source: Balestriero & LeCun 2024 (arXiv 2402.11337), Fig. 1, released code.
    """
    if count < 2:
        raise ValueError(f"count must be at least 2, got {count}")
    values = np.asarray(spectrum.values, np.float64)
    if np.count_nonzero(values > 0) < 3:
        raise ValueError("fewer than three components carry variance: there is nothing to split")
    explained = cumulative_variance(spectrum)
    low, high = explained[1], explained[below(spectrum, 1.0)].max()
    steps = np.linspace(0, 1, count)
    return low + steps * (high - low), low + steps**0.25 * (high - low)


def subspaces_of(tops: Sequence[float], bottoms: Sequence[float]) -> list[Subspace]:
    """Tops and bottoms by their thresholds, in ascending order of what they keep, then all.

    Args:
      tops: thresholds t of the tops, in [0, 1].
      bottoms: thresholds t of the bottoms, which keep 1 - t.
    """
    found = [Subspace("top", 100 * float(t), float(t)) for t in sorted(tops)]
    found += [
        Subspace("bottom", 100 * (1 - float(t)), float(t)) for t in sorted(bottoms, reverse=True)
    ]
    return [*found, Subspace("all", 100.0, 1.0)]


def kept_components(subspace: Subspace, spectrum: Spectrum) -> tuple[slice, float]:
    """Which components a subspace keeps, and their share of the variance in per cent.

    Args:
      subspace: of the spectrum.
      spectrum: of the data.

    Returns:
      (slice of the components, per cent).
    """
    values = np.asarray(spectrum.values, np.float64)
    rank = split_by_variance(spectrum, subspace.threshold)[0].shape[1]
    kept = {"top": slice(0, rank), "bottom": slice(rank, None), "all": slice(0, None)}
    kept = kept[subspace.side]
    return kept, 100 * float(values[kept].sum() / values.sum())


def project_on(
    images: Float[np.ndarray, "n ..."], subspace: Subspace, spectrum: Spectrum
) -> Float[np.ndarray, "n ..."]:
    """Orthogonal projection of images on a subspace around the mean, in float32.

    Args:
      images: (N, H, W, C) or (N, D), in the units of the spectrum.
      subspace: on which to project.
      spectrum: of the data.

    Raises:
      ValueError: if the image size differs from the spectrum's.
    """
    if subspace.side == "all":
        return images
    top, _ = split_by_variance(spectrum, subspace.threshold)
    mean = np.asarray(spectrum.mean, np.float32)
    part = project(images, jnp.asarray(top, jnp.float32), jnp.asarray(mean))
    part = np.asarray(part)
    if subspace.side == "top":
        return part
    # The bottom is what the top leaves: its basis, wide where the top's is narrow, is not needed.
    return images - part + mean.reshape(images.shape[1:])


def subspace_filter(
    subspace: Subspace, spectrum: Spectrum
) -> Callable[[Float[Array, "n h w c"]], Float[Array, "n h w c"]]:
    """The projection of images on a subspace around the mean, as a function for use inside jit.

    Only the basis of the top is kept, in float32: D x K numbers, a small K where the subspace is
    split off at three quarters of the variance or less.

    Args:
      subspace: on which to project.
      spectrum: of images in the units of those to come.

    Returns:
      A function of images (N, H, W, C), such as a target of `training.masked_autoencoder_loss`.
    """
    if subspace.side == "all":
        return lambda images: images
    basis = np.asarray(split_by_variance(spectrum, subspace.threshold)[0], np.float32)
    mean = np.asarray(spectrum.mean, np.float32)

    def filtered(images):
        top = project(images, jnp.asarray(basis), jnp.asarray(mean))
        if subspace.side == "top":
            return top
        return images - top + jnp.asarray(mean).reshape(1, *images.shape[1:])

    return filtered
