"""Where a patch is: fixed embeddings of the positions of a grid, and those of another grid."""

from __future__ import annotations

import numpy as np
from jaxtyping import ArrayLike, Float

from recon_jax.checks import check_integer

# The cubic kernel of Keys 1981 with a = -3/4, which PyTorch's bicubic interpolation has.
CUBIC = -0.75


def sincos_positions(rows: int, columns: int, width: int) -> Float[np.ndarray, "p d"]:
    """Fixed embeddings of the positions of a grid, (rows * columns, width).

    A coordinate t becomes sin(t w_i), cos(t w_i) with w_i = 10000^(-4 i / width) for
    i = 0 .. width / 4 - 1; the first half of the entries is of the column, the second of the row.

    Args:
      rows: of the grid.
      columns: of the grid.
      width: of a token, a multiple of 4.

    Source: He et al. 2022 (arXiv 2111.06377), released code.
    """
    rates = 10_000.0 ** (-np.arange(width // 4) / (width / 4))
    row, column = np.divmod(np.arange(rows * columns), columns)
    angles = [t[:, None] * rates[None, :] for t in (column, row)]
    return np.concatenate([f(angle) for angle in angles for f in (np.sin, np.cos)], axis=1)


def cubic_kernel(distance: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
    """The interpolating cubic of Keys at these distances, zero from 2 on."""
    d = np.abs(distance)
    near = (CUBIC + 2) * d**3 - (CUBIC + 3) * d**2 + 1
    far = CUBIC * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def resizing_matrix(length: int, new_length: int) -> Float[np.ndarray, "new old"]:
    """Bicubic resampling of one axis, (new_length, length); rows sum to one.

    Sample i of the new axis lies at (i + 1/2) length / new_length - 1/2 of the old one, whose ends
    are repeated; nothing is smoothed before shrinking.

    Args:
      length: of the old axis.
      new_length: of the new one.
    """
    place = (np.arange(new_length) + 0.5) * length / new_length - 0.5
    taps = np.floor(place)[:, None] + np.arange(-1, 3)[None, :]
    weights = cubic_kernel(place[:, None] - taps)
    matrix = np.zeros((new_length, length))
    columns = np.clip(taps, 0, length - 1).astype(int)
    np.add.at(matrix, (np.arange(new_length)[:, None], columns), weights)
    return matrix


def resize_positions(
    positions: Float[ArrayLike, "p d"], grid: tuple[int, int], new_grid: tuple[int, int]
) -> Float[np.ndarray, "q d"]:
    """Embeddings of the positions of one grid, interpolated to another.

    Bicubic, half-pixel centres, borders repeated, no antialiasing: as released models are put to
    images of another size (PyTorch's `interpolate(mode="bicubic", align_corners=False)`).

    Args:
      positions: (R C, D), row by row.
      grid: R and C, both positive.
      new_grid: R' and C', both positive.

    Returns:
      (R' C', D), in float64; the given numbers if the grids are equal.

    Raises:
      ValueError: if there is not one row for each place of the grid, or a grid is empty.

    Source: Keys 1981, Cubic convolution interpolation for digital image processing, with a = -3/4.
    """
    positions = np.asarray(positions, np.float64)
    for name, sides in (("grid", grid), ("new_grid", new_grid)):
        for side in sides:
            check_integer(name, side, 1)
    rows, columns = grid
    if len(positions) != rows * columns:
        raise ValueError(
            f"positions must have one row for each of the {rows} x {columns} = {rows * columns} "
            f"places of the grid, got shape {positions.shape}; leave out that of the class token"
        )
    if tuple(grid) == tuple(new_grid):
        return positions
    down, across = (resizing_matrix(*pair) for pair in zip(grid, new_grid, strict=True))
    image = positions.reshape(rows, columns, -1)
    resized = np.einsum("ai,bj,ijd->abd", down, across, image, optimize=True)
    return resized.reshape(-1, positions.shape[1])
