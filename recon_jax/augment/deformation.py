"""Max-entropy deformations of random roughness and strength."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from recon_jax import diffeo
from recon_jax.augment.policies import Policy
from recon_jax.checks import check_choice
from recon_jax.diffeo.checks import as_cutoff
from recon_jax.diffeo.fields import wave_numbers


def deformation(
    image_shape: tuple[int, int, int],
    cutoff: tuple[int, int] = (3, 5),
    temperature_odds: float = 1.0,
    temperature_concentration: float = 2.0,
    cutoff_odds: float = 1.0,
    cutoff_concentration: float = 2.0,
    interpolation: str = "bilinear",
) -> Policy:
    """A smooth deformation of each image, of a cutoff c and a temperature T of its own.

    c = floor(c_min + b (c_max + 1 - c_min)) and T = T_min(c) + b' (T_max(c) - T_min(c)), within
    the bounds of `diffeo.temperature_bounds`; b and b' are independent draws from
    Beta(s r / (1 + r), s / (1 + r)), each with its odds r and concentration s. The mean of b is
    r / (1 + r). The defaults, r = 1 and s = 2, make both uniform, over rather smooth fields.

    The key of an image is split in two: from the first come b and b' in one draw, in this order,
    from the second the coefficients of the field, for c_max waves whatever c is.

    Args:
      image_shape: (H, W, C).
      cutoff: c_min and c_max, 2 <= c_min <= c_max <= 2 n / pi, where T_min = T_max on images of n
        pixels; n^2 is (H^2 + W^2) / 2.
      temperature_odds: r of T, > 0: the strength. Towards 0 all displacements are half a pixel;
        with large odds they are as large as they can be, and about a third of the fields fold.
      temperature_concentration: s of T, > 0. Large ones fix T at the mean.
      cutoff_odds: r of c, > 0.
      cutoff_concentration: s of c, > 0.
      interpolation: one of `diffeo.INTERPOLATIONS`; "gaussian" smooths the images as well.

    Returns:
      The `Policy`.

    Raises:
      ValueError: if a number is out of range or the interpolation is unknown.

    Source: Petrini et al. 2021 (arXiv 2105.02468), released code; the paper's experiments do not
      use it. The defaults are this library's.
    """
    check_choice("interpolation", interpolation, diffeo.INTERPOLATIONS)
    size = image_shape[:2]
    lowest, highest = (as_cutoff(cut) for cut in cutoff)
    bounds = _bounds(lowest, highest, size)
    shapes = np.transpose(
        [
            _beta("cutoff", cutoff_odds, cutoff_concentration),
            _beta("temperature", temperature_odds, temperature_concentration),
        ]
    )

    def policy(keys, images):
        def one(key):
            strength_key, field_key = jax.random.split(key)
            cut, temperature = draw_strength(strength_key, lowest, bounds, *shapes)
            tables = diffeo.sample_coefficients(field_key, highest, images.dtype)
            kept = wave_numbers(highest) < cut + 0.5
            return *(jnp.where(kept, table, 0) for table in tables), temperature

        A, B, temperature = jax.vmap(one)(keys)
        dx, dy = diffeo.displacement_field(A, B, size, temperature)
        return diffeo.warp(images, dx, dy, interpolation)

    return policy


def draw_strength(
    key: jax.Array, lowest: int, bounds: np.ndarray, alpha: np.ndarray, beta: np.ndarray
) -> tuple[Int[Array, ""], Float[Array, ""]]:
    """Cutoff and temperature of one image.

    Args:
      key: used for nothing else.
      lowest: the least cutoff.
      bounds: T_min and T_max of every cutoff (count, 2).
      alpha: first parameters of the Beta distributions of cutoff and temperature.
      beta: second parameters.
    """
    # In float32 also under x64, so that the same cutoff comes out.
    shapes = (jnp.asarray(shape, jnp.float32) for shape in (alpha, beta))
    up = jax.random.beta(key, *shapes, dtype=jnp.float32)
    # Rounding may take a draw to 1.
    index = jnp.minimum(jnp.floor(up[0] * len(bounds)).astype(jnp.int32), len(bounds) - 1)
    least, most = jnp.asarray(bounds, jnp.float32)[index]
    return lowest + index, least + up[1] * (most - least)


def _bounds(lowest: int, highest: int, size: tuple[int, int]) -> np.ndarray:
    """Bounds of the temperature for each cutoff (count, 2)."""
    finest = math.floor(2 * math.hypot(*size) / math.sqrt(2) / math.pi)
    if not lowest <= highest <= finest:
        raise ValueError(
            f"cutoff={(lowest, highest)} must be the least and the largest, within 2 .. {finest} "
            f"on images of {size[0]} x {size[1]}: beyond, no temperature is within its bounds"
        )
    cutoffs = range(lowest, highest + 1)
    return np.asarray([diffeo.temperature_bounds(size, cut) for cut in cutoffs])


def _beta(name: str, odds: float, concentration: float) -> tuple[float, float]:
    """The two parameters of a Beta distribution."""
    for what, value in (("odds", odds), ("concentration", concentration)):
        if not 0 < value < math.inf:
            raise ValueError(
                f"{name}_{what}={value} must be a finite number > 0; odds of 1 and a concentration "
                "of 2 are the uniform distribution"
            )
    return concentration * odds / (1 + odds), concentration / (1 + odds)
