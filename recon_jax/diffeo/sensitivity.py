"""How far a representation moves when images are deformed, and when noise of that size is added.

Source: Petrini et al. 2021 (arXiv 2105.02468) and Tomasini et al. 2022 (arXiv 2210.01506).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped
from jaxtyping import ArrayLike as JaxArrayLike

from recon_jax import parallel
from recon_jax.checks import check_choice, is_concrete
from recon_jax.diffeo.checks import as_floats, as_images
from recon_jax.diffeo.fields import temperature_for
from recon_jax.diffeo.noise import matched_noise
from recon_jax.diffeo.warps import deform, reference

REDUCTIONS = ("mean", "median")


class Sensitivity(NamedTuple):
    """Sensitivities of a representation: numbers, or arrays over layers where they are stacked.

    Attributes:
      D: to deformations.
      G: to noise of the same size in the pixels.
      R: D / G, the relative one; infinite where noise changes nothing, NaN where neither does.
    """

    D: Array
    G: Array
    R: Array


class Probes(NamedTuple):
    """Images and two changes of them of equal norm, image by image.

    Attributes:
      images: what the others are compared with, (N, H, W, C).
      deformed: the same images, smoothly deformed.
      noisy: the same images with Gaussian noise added.
    """

    images: Array
    deformed: Array
    noisy: Array


def probe_images(
    key: jax.Array,
    images: Shaped[JaxArrayLike, "..."],
    cutoff: int = 3,
    displacement: float = 1.0,
    interpolation: str = "bilinear",
) -> Probes:
    """Images with one max-entropy deformation and one draw of noise of its norm for each.

    Image i is the same whatever follows it in the batch. The defaults are those of both papers.

    Args:
      key: drawn from for the deformations and the noise.
      images: (N, H, W, C), H and W at least 2; integers keep their values and become float32.
      cutoff: c >= 2, the highest wave number of the deformations.
      displacement: the nominal one in pixels, > 0; see `temperature_for`.
      interpolation: one of `INTERPOLATIONS`. "gaussian" smooths, so that `images` of the result are
        then the smoothed ones (`reference`).

    Returns:
      The `Probes`, float32, or float64 for float64 images.

    Raises:
      ValueError: if a number is out of range, the images have another shape or the interpolation is
        unknown.

    Source: Petrini et al. 2021 (arXiv 2105.02468), released code of the measurements.
    """
    images = as_images(images)
    temperature = temperature_for(displacement, images.shape[1:3], cutoff)
    plain = reference(images, interpolation)
    for_fields, for_noise = jax.random.split(key)
    deformed = deform(for_fields, images, cutoff, temperature, interpolation)
    return Probes(plain, deformed, plain + matched_noise(for_noise, plain, deformed))


def sensitivities(
    features: Shaped[JaxArrayLike, "..."],
    features_deformed: Shaped[JaxArrayLike, "..."],
    features_noisy: Shaped[JaxArrayLike, "..."],
    reduce: str = "mean",
) -> Sensitivity:
    """Sensitivity of a representation f to deformations (D), to noise (G), and their ratio R = D/G.

    "mean":   D = mean_x |f(tau x) - f(x)|^2 / mean_{x, x'} |f(x) - f(x')|^2
    "median": D = sum_i median_x (f_i(tau x) - f_i(x))^2 / median_{x, x'} |f(x) - f(x')|^2

    and G alike from f(x + eta). All N^2 pairs count, those of an image with itself too. The mean
    over pairs is 2 mean_x |f(x) - mean f|^2, so that no pair is formed; the median needs the N x N
    distances, found by one product of the centred features, and those below its rounding, 8 eps of
    their norms, count as 0. A median of an even number is the mean of the middle two.

    Nothing changes if the features are rescaled or shifted; nor, for "mean", if they are rotated.
    Differences and centred features are squared and summed, in float32 at least, so that a large
    common offset costs no accuracy but what the features themselves have lost.

    Args:
      features: f(x) of N >= 2 images, (N, ...) with any axes after the first.
      features_deformed: f(tau x) of the same images deformed, of the same shape.
      features_noisy: f(x + eta) of the same images with noise, of the same shape.
      reduce: "mean" (Tomasini et al.), or "median" (Petrini et al.), which heavy tails over the
        images do not move.

    Returns:
      The `Sensitivity`, three numbers, float32, or float64 if the features are. R is infinite where
      noise changes nothing (G = 0) and NaN where deformations do not either. The released code adds
      1e-10 to the denominator of D and G; here 0 is refused.

    Raises:
      ValueError: if there are fewer than two images, the shapes differ, `reduce` is unknown or,
        outside jit, where values are known, an entry is not finite or the denominator is 0 because
        features are the same for all images (for "median": for most pairs of them).

    Source: Tomasini et al. 2022 (arXiv 2210.01506), section 2; Petrini et al. 2021 (arXiv
      2105.02468), equations 4 and 5; released code of both.
    """
    check_choice("reduce", reduce, REDUCTIONS)
    arrays = {
        "features": features,
        "features_deformed": features_deformed,
        "features_noisy": features_noisy,
    }
    arrays = {name: as_floats(array) for name, array in arrays.items()}
    _check_shapes(arrays)
    for name, array in arrays.items():
        _check_finite(name, array)
    dtype = jnp.result_type(*arrays.values())
    rows = [array.reshape(len(array), -1).astype(dtype) for array in arrays.values()]
    if reduce == "mean":
        parts = _mean_parts(*rows)
    elif is_concrete(*rows) and parallel.is_cpu():
        # XLA's sort on the CPU takes ten times as long as NumPy's selection.
        parts = [jnp.asarray(part) for part in _median_parts(np, *map(np.asarray, rows))]
    else:
        parts = _traced_median_parts(*rows)
    fault = denominator_fault(parts[0], reduce, len(rows[0]))
    if fault:
        raise ValueError(f"features {fault}")
    return ratios(*parts)


def _check_shapes(arrays: dict[str, Array]) -> None:
    shapes = {name: array.shape for name, array in arrays.items()}
    listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
    if not all(shapes.values()):
        raise ValueError(f"features must have a leading axis of images, (N, ...), got {listed}")
    if len(set(shapes.values())) > 1:
        raise ValueError(
            f"the features must have one shape, of the same images in the same order; got {listed}"
        )
    if len(arrays["features"]) < 2:
        raise ValueError(
            f"{len(arrays['features'])} image(s) have no distances between them to compare with; "
            "give at least two, the papers take 500"
        )


def _check_finite(name: str, array: Array) -> None:
    if not is_concrete(array):
        return
    # Values that a jitted function closes over are concrete, but plain operations on them are not.
    with jax.ensure_compile_time_eval():
        bad = int(jnp.size(array) - jnp.isfinite(array).sum())
    if bad:
        raise ValueError(
            f"{name} holds {bad} NaN or infinite entries out of {array.size}; look at the images "
            "and at the network that made them"
        )


def denominator_fault(denominator: Any, reduce: str, count: int) -> str | None:
    """What is wrong with features of this denominator; None if nothing is, or inside jit."""
    if not is_concrete(denominator) or 0 < float(denominator) < math.inf:
        return None
    if float(denominator) != 0:
        return "overflow when they are squared: divide them by a constant, which changes no result"
    if reduce == "mean":
        return (
            f"are the same for all {count} images, so that there is no distance to compare with: "
            "leave them out, or take images that they tell apart"
        )
    return (
        f"coincide for more than half of the pairs of {count} images, so that the median distance "
        'is 0: leave them out, take other images, or reduce="mean"'
    )


def ratios(denominator: Array, deformed: Array, noisy: Array) -> Sensitivity:
    """The sensitivities from their denominator and their two numerators."""
    return Sensitivity(deformed / denominator, noisy / denominator, deformed / noisy)


@jax.jit
def _mean_parts(features, deformed, noisy):
    # The first image goes off before the mean does, because the mean of equal numbers is not always
    # that number, and features that are the same for all images must be seen to be.
    centred = features - features[:1]
    centred -= centred.mean(0, keepdims=True)
    squares = (jnp.square(rows).sum(1) for rows in (centred, deformed - features, noisy - features))
    spread, deformed, noisy = (square.mean() for square in squares)
    return 2 * spread, deformed, noisy


def _median_parts(xp, features, deformed, noisy):
    """Denominator and numerators by NumPy or `jax.numpy`, whichever `xp` is."""
    centred = features - features[:1]
    centred = centred - centred.mean(0, keepdims=True)
    products = centred @ centred.T
    norms = xp.diagonal(products)
    sums = norms[:, None] + norms[None, :]
    distances = sums - 2 * products
    distances = xp.where(distances > 8 * xp.finfo(features.dtype).eps * sums, distances, 0)
    numerators = (
        xp.median(xp.square(changed - features), axis=0).sum() for changed in (deformed, noisy)
    )
    return (xp.median(distances), *numerators)


@jax.jit
def _traced_median_parts(features, deformed, noisy):
    with jax.default_matmul_precision("highest"):
        return _median_parts(jnp, features, deformed, noisy)
