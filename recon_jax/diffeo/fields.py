"""Max-entropy displacement fields: sums of sine waves with independent Gaussian coefficients.

A field moves pixel (y, x) of an image by (dy, dx) pixels and vanishes on its border. Of all fields
with a given mean squared gradient, made of waves up to a cutoff c, these are the most random ones.
Their size is set by a temperature T.

Source: Petrini et al. 2021 (arXiv 2105.02468) and its released code for the ensemble; the exact
second moment and the case of unequal sides are derived here.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float, Shaped

from recon_jax.checks import check_numbers
from recon_jax.diffeo.checks import Size, as_cutoff, as_floats, as_size, check_temperature


def wave_numbers(cutoff: int) -> np.ndarray:
    """sqrt(i^2 + j^2) of the waves, i, j = 1 .. c: (c, c) in float64."""
    waves = np.arange(1.0, cutoff + 1)
    return np.hypot(waves[:, None], waves[None, :])


def mode_weights(cutoff: int) -> np.ndarray:
    """e_ij = 1 / sqrt(i^2 + j^2) where that root is below c + 1/2, else 0: (c, c) in float64.

    Args:
      cutoff: c >= 2. 3, 6, 19, 77 and 172 waves remain for c = 2, 3, 5, 10 and 15.

    Raises:
      ValueError: if the cutoff is not an integer of at least 2.

    Source: Petrini et al. 2021 (arXiv 2105.02468), released code.
    """
    cutoff = as_cutoff(cutoff)
    numbers = wave_numbers(cutoff)
    return np.where(numbers < cutoff + 0.5, 1 / numbers, 0)


def sine_table(side: int, cutoff: int) -> np.ndarray:
    """sin(pi i k / (n - 1)) of pixels k = 0 .. n - 1 and waves i = 1 .. c: (n, c) in float64."""
    angles = np.arange(side)[:, None] * np.arange(1, cutoff + 1)[None, :]
    # Whole multiples of pi are multiples of side - 1 here: the border is exactly zero.
    return np.where(angles % (side - 1) == 0, 0, np.sin(angles * (np.pi / (side - 1))))


def sample_coefficients(
    key: jax.Array, cutoff: int, dtype: DTypeLike = jnp.float32
) -> tuple[Float[Array, "c c"], Float[Array, "c c"]]:
    """Coefficients of the waves of one field: independent draws from N(0, 1).

    Args:
      key: used for nothing else; `jax.vmap` over keys draws many fields.
      cutoff: c >= 2.
      dtype: of the tables, a float.

    Returns:
      Tables (c, c) of the displacements along x and along y, drawn in this order. Entry (i, j) has
      i waves along x and j along y; also those are drawn that have no weight in the field.

    Raises:
      ValueError: if the cutoff is not an integer of at least 2.

    Source: Petrini et al. 2021 (arXiv 2105.02468), released code.
    """
    cutoff = as_cutoff(cutoff)
    tables = jax.random.normal(key, (2, cutoff, cutoff), dtype)
    return tables[0], tables[1]


def displacement_field(
    A: Shaped[ArrayLike, "..."],
    B: Shaped[ArrayLike, "..."],
    size: Size,
    temperature: ArrayLike,
) -> tuple[Float[Array, "*batch h w"], Float[Array, "*batch h w"]]:
    """Displacements in pixels, zero on the border.

    dx[y, x] = W sqrt(T) sum_ij A_ij e_ij sin(i pi x / (W - 1)) sin(j pi y / (H - 1)), and dy the
    same with B and H; e_ij are the `mode_weights`. Computed as two products with tables of sines.

    Args:
      A: coefficients (..., c, c) of the displacement along x; entry (i, j) has i waves along x.
      B: likewise along y.
      size: H = W, or (H, W), in pixels, each at least 2.
      temperature: T >= 0, a number or an array of the leading shape (...).

    Returns:
      dx and dy, (..., H, W). The deformed image at (y, x) is the image at (y - dy, x - dx).

    Raises:
      ValueError: if A or B is not such a table, c < 2, a side is below 2 pixels, or a temperature
        is negative or not finite (outside jit) or of another shape.

    Source: Petrini et al. 2021 (arXiv 2105.02468), released code.
    """
    height, width = as_size(size)
    A, B = as_floats(A), as_floats(B)
    if A.shape != B.shape or A.ndim < 2 or A.shape[-1] != A.shape[-2]:
        raise ValueError(
            f"A and B must be tables (..., c, c) of one shape, got {A.shape} and {B.shape}; "
            "sample_coefficients draws them"
        )
    cutoff = as_cutoff(A.shape[-1])
    check_temperature(temperature)
    amplitude = jnp.sqrt(jnp.asarray(temperature).astype(jnp.promote_types(A.dtype, B.dtype)))
    if amplitude.shape not in ((), A.shape[:-2]):
        raise ValueError(
            f"temperature has shape {amplitude.shape}; one number or one a field, {A.shape[:-2]}, "
            "is needed"
        )
    amplitude = jnp.broadcast_to(amplitude, A.shape[:-2])[..., None, None]
    weights, rows, columns = (
        jnp.asarray(table, amplitude.dtype)
        for table in (
            mode_weights(cutoff),
            sine_table(height, cutoff),
            sine_table(width, cutoff),
        )
    )

    def field(table, side):
        waves = table * jnp.broadcast_to(side * weights, table.shape) * amplitude
        along_y = jnp.einsum("...ij,yj->...yi", waves, rows, precision="highest")
        return jnp.einsum("...yi,xi->...yx", along_y, columns, precision="highest")

    return field(A, width), field(B, height)


def _squared_side(size: Size) -> float:
    """n^2, or the mean of the two squared sides."""
    height, width = as_size(size)
    return (height**2 + width**2) / 2


def temperature_for(displacement: ArrayLike, size: Size, cutoff: int) -> ArrayLike:
    """Temperature at which the nominal displacement is delta: T = 4 delta^2 / (pi n^2 ln c).

    Args:
      displacement: delta >= 0 in pixels, a number or an array. It is nominal, the limit of many
        waves: at delta = 1 the root mean square on 32 x 32 pixels is 0.82 for c = 3 and 0.86 for
        c = 15; see `rms_displacement`.
      size: n, or (H, W), for which n^2 is (H^2 + W^2) / 2.
      cutoff: c >= 2.

    Returns:
      T >= 0, of the displacement's kind.

    Raises:
      ValueError: if a number is out of range.

    Source: Petrini et al. 2021 (arXiv 2105.02468), released code.

    >>> round(temperature_for(displacement=1.0, size=32, cutoff=3), 6)
    0.001132
    """
    check_numbers("displacement", displacement, "[0, inf)", "in pixels; 0 deforms nothing")
    return 4 * displacement**2 / (math.pi * _squared_side(size) * math.log(as_cutoff(cutoff)))


def displacement_for(temperature: ArrayLike, size: Size, cutoff: int) -> ArrayLike:
    """Nominal displacement of a temperature, in pixels: delta = (n / 2) sqrt(pi T ln c).

    The inverse of `temperature_for`, which says what is nominal about it.

    Args:
      temperature: T >= 0, a number or an array.
      size: n, or (H, W), for which n^2 is (H^2 + W^2) / 2.
      cutoff: c >= 2.

    Raises:
      ValueError: if a number is out of range.

    Source: Petrini et al. 2021 (arXiv 2105.02468), released code.
    """
    check_temperature(temperature)
    scale = math.sqrt(math.pi * _squared_side(size) * math.log(as_cutoff(cutoff))) / 2
    return scale * temperature**0.5


def temperature_bounds(size: Size, cutoff: int) -> tuple[float, float]:
    """Least and largest temperature in use: 1 / (pi n^2 ln c) and 4 / (pi^3 c^2 ln c).

    At the least one delta = 1/2 pixel. At the largest one delta = n / (pi c), where a typical field
    is at its limit of being invertible; many are beyond it: see `min_jacobian`. On images of fewer
    than pi c / 2 pixels the first exceeds the second.

    Args:
      size: n, or (H, W), for which n^2 is (H^2 + W^2) / 2.
      cutoff: c >= 2.

    Returns:
      (least, largest).

    Raises:
      ValueError: if a number is out of range.

    Source: Petrini et al. 2021 (arXiv 2105.02468), released code.
    """
    logarithm = math.log(as_cutoff(cutoff))
    least = 1 / (math.pi * _squared_side(size) * logarithm)
    return least, 4 / (math.pi**3 * cutoff**2 * logarithm)


def rms_displacement(temperature: ArrayLike, size: Size, cutoff: int) -> ArrayLike:
    """Root mean square of the displacement's length over fields and pixels, in pixels, exact.

    rms^2 = T (H^2 + W^2) sum_ij e_ij^2 g_i(W) g_j(H), g_i(n) the mean of sin^2(i pi k / (n - 1))
    over the n pixels: (n - 1) / (2 n), but 0 where n - 1 divides i.

    Args:
      temperature: T >= 0, a number or an array.
      size: H = W, or (H, W).
      cutoff: c >= 2.

    Raises:
      ValueError: if a number is out of range.
    """
    height, width = as_size(size)
    weights = mode_weights(cutoff)
    check_temperature(temperature)
    rows, columns = (np.mean(sine_table(side, cutoff) ** 2, axis=0) for side in (height, width))
    per_temperature = (height**2 + width**2) * float(columns @ weights**2 @ rows)
    return math.sqrt(per_temperature) * temperature**0.5
